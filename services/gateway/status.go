package gateway

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/web"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	// engineAsked is how often at most the scheduler is asked for its engine: anybody
	// may ask for the status.
	engineAsked = 5 * time.Second
	// engineWithin is how long its answer may take: the status does not wait for it.
	engineWithin = time.Second
)

// engineStatus is what the scheduler said of its engine last.
type engineStatus struct {
	client schedulerv1.EngineServiceClient
	now    func() time.Time

	mu    sync.Mutex
	asked time.Time
	known *schedulerv1.GetEngineResponse // nil: it did not answer
}

func (e *engineStatus) get(ctx context.Context) *schedulerv1.GetEngineResponse {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.now(); e.asked.IsZero() || now.Sub(e.asked) >= engineAsked {
		ctx, cancel := context.WithTimeout(ctx, engineWithin)
		defer cancel()
		var err error
		if e.known, err = e.client.GetEngine(ctx, &schedulerv1.GetEngineRequest{}); err != nil {
			e.known = nil
		}
		e.asked = now
	}
	return e.known
}

// GetStatus says that the gateway serves, and how the engine does.
func (s *Service) GetStatus(ctx context.Context, _ *gatewayv1.GetStatusRequest) (*gatewayv1.GetStatusResponse, error) {
	engine := s.engine.get(ctx)
	return &gatewayv1.GetStatusResponse{
		Status: "up", Version: s.deps.Version, Engine: engine.GetName(), EngineAwayTime: engine.GetAwayTime(),
	}, nil
}

// outsideSlow is for how long what waits for a receiver outside counts as on its way.
const outsideSlow = 5 * time.Minute

// outsideHealth is how far behind receivers outside are.
func (s *Service) outsideHealth(ctx context.Context) ([]web.Outsider, error) {
	if len(s.outside) == 0 {
		return nil, nil
	}
	behind, err := s.store.behind(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]web.Outsider, 0, len(s.outside))
	for _, o := range s.outside {
		b := behind[o.Name]
		shown := web.Outsider{Name: o.Name, Waiting: b.undecided, Failed: b.kept}
		if oldest := sqldb.Time(b.oldest); b.undecided > 0 && s.deps.Now().Sub(oldest) > outsideSlow {
			shown.Since = timestamppb.New(oldest)
		}
		all = append(all, shown)
	}
	return all, nil
}
