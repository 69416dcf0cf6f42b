package web

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

const (
	// healthKept is how long what the rooms answered is shown: anybody may ask.
	healthKept = 5 * time.Second
	// healthWithin is how long a room may take to answer.
	healthWithin = 2 * time.Second
)

// health asks the other rooms how they do.
type health struct {
	rooms  map[string]grpc.ClientConnInterface
	engine func(context.Context) *schedulerv1.GetEngineResponse
	others func(context.Context) ([]Outsider, error)
	now    func() time.Time

	mu    sync.Mutex
	asked time.Time
	known healthPage
}

// healthPage is what the page of health shows.
type healthPage struct {
	Version    string
	Rooms      []roomHealth
	Engine     string
	EngineAway *timestamppb.Timestamp // since when it does not answer; nil: it does
	Outside    []Outsider
}

// Outsider is how far behind a receiver outside is.
type Outsider struct {
	Name            string
	Waiting, Failed int64                  // deliveries that are still tried, and that no try is left for
	Since           *timestamppb.Timestamp // since when it takes none; nil: it does
}

// roomHealth is how a room does.
type roomHealth struct{ Name, Does, State, Text string }

// Well is that everything works.
func (h healthPage) Well() bool {
	for _, room := range h.Rooms {
		if room.State != "up" {
			return false
		}
	}
	for _, o := range h.Outside {
		if o.Since != nil {
			return false
		}
	}
	return h.Engine != "" && h.EngineAway == nil
}

func (p *Pages) health(w http.ResponseWriter, r *http.Request) {
	shown := p.rooms.ask(r.Context())
	shown.Version = p.deps.Version
	p.render(w, r, http.StatusOK, "health.html", shown)
}

func (h *health) ask(ctx context.Context) healthPage {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); !h.asked.IsZero() && now.Sub(h.asked) < healthKept {
		return h.known
	}
	// Whoever asks next gets this answer, so that it does not end with one reader.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthWithin)
	defer cancel()
	shown := healthPage{Rooms: []roomHealth{
		{Name: "gateway", Does: "takes what GitHub sends, and shows this page", State: "up"},
		{Name: "config", Does: "reads .forge.yml and the source", State: "down"},
		{Name: "scheduler", Does: "queues and runs builds", State: "down"},
		{Name: "reporter", Does: "tells GitHub what became of them", State: "down"},
	}}
	var asking errgroup.Group
	for n := range shown.Rooms {
		if room := &shown.Rooms[n]; room.State != "up" {
			asking.Go(func() error { room.State, room.Text = roomState(ctx, h.rooms[room.Name]); return nil })
		}
	}
	asking.Go(func() error {
		engine := h.engine(ctx)
		shown.Engine, shown.EngineAway = engine.GetName(), engine.GetAwayTime()
		return nil
	})
	if h.others != nil {
		asking.Go(func() (err error) { // without a database the gateway is not ready, which its own check says
			shown.Outside, err = h.others(ctx)
			return err
		})
	}
	_ = asking.Wait() // what failed is not shown
	h.known, h.asked = shown, h.now()
	return shown
}

// roomState asks one room.
func roomState(ctx context.Context, room grpc.ClientConnInterface) (state, text string) {
	client := healthv1.NewHealthClient(room)
	ready, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: rpc.Ready})
	if status.Code(err) == codes.NotFound || ready.GetStatus() == healthv1.HealthCheckResponse_SERVING && err == nil {
		return "up", "" // an older one does not know this check
	}
	if _, err = client.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
		return "down", "It does not answer. What GitHub sends is kept meanwhile, and goes on once it does."
	}
	return "not ready", "It answers, and lacks something that it needs, such as its database: see its log."
}
