package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/access"
	"github.com/forge-ci/forge/services/gateway/audit"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/traces"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the goose files of the gateway's database.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a valid one
	}
	return sub
}

// Access is who may call the gateway's methods.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		gatewayv1.WebhookService_Listen_FullMethodName:   {Public: true}, // a signature is the key
		gatewayv1.StatusService_GetStatus_FullMethodName: {Public: true},
		// A build has none of these proofs, so it writes into nobody's trace.
		collectorv1.TraceService_Export_FullMethodName: {Rooms: []string{"config", "scheduler", "reporter", "gateway"}},
		// These ask themselves who calls, and are served over HTTP alone.
		gatewayv1.SignInService_StartSignIn_FullMethodName:         {Public: true},
		gatewayv1.SignInService_FinishSignIn_FullMethodName:        {Public: true},
		gatewayv1.SignInService_SignOut_FullMethodName:             {Public: true},
		gatewayv1.SignInService_GetViewer_FullMethodName:           {Public: true},
		gatewayv1.SignInService_ListPersonalTokens_FullMethodName:  {Public: true},
		gatewayv1.SignInService_DeletePersonalToken_FullMethodName: {Public: true},
		gatewayv1.DeliveryService_ListDeliveries_FullMethodName:    {},
		gatewayv1.DeliveryService_GetDelivery_FullMethodName:       {},
		gatewayv1.DeliveryService_ExplainAddress_FullMethodName:    {},
		gatewayv1.DeliveryService_RedeliverDelivery_FullMethodName: {},
		gatewayv1.DeliveryService_RecoverDeliveries_FullMethodName: {},
	}
}

// Deps is what the gateway works with. Log, Tracer, Meter, Now and Random may
// be left out.
type Deps struct {
	DB *sqldb.DB
	// Self leads to the server this Service is registered with: the JSON API goes
	// through its checks like any other caller. It shows the gateway's room at
	// most, so no method with an HTTP binding may be opened to that room.
	Self grpc.ClientConnInterface
	// Receivers leads to the rooms "config", "scheduler" and "reporter".
	Receivers map[string]grpc.ClientConnInterface
	// Outside are those besides the rooms whom deliveries are forwarded to.
	Outside Outside

	Webhook   Webhook
	GitHub    GitHub
	People    People
	TLS       TLS
	Retention Retention

	// Traces keeps spans, which are shown unless TraceURL says where they are shown
	// instead; nil: nothing is kept.
	Traces   *traces.Store
	TraceURL string

	Version     string
	ExternalURL string // how people reach this Forge

	Log    *slog.Logger
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	Now    func() time.Time
	Random func() float64 // in [0, 1)
}

// Webhook says which deliveries are accepted.
type Webhook struct {
	Secrets        []string // each of them is accepted; one at least
	AllowedIPs     []string // "github", "any" or CIDRs
	TrustedProxies []string // CIDRs of those whose X-Forwarded-For or Forwarded is believed
}

// GitHub says where it is.
type GitHub struct {
	URL    string // of the pages that people see; "": https://github.com
	APIURL string // "": https://api.github.com
}

// Outside says who else gets deliveries.
type Outside struct {
	Receivers []Receiver
	TryFor    time.Duration // how long tries go on; 0: for ever
}

// People says who is who, and what they may.
type People struct {
	AdminToken string
	SignIn     signin.Config
	// Admins are who runs this Forge: logins, and teams as org/team.
	Admins []string
	// OpenLinks is that a build's address is enough to see the build. Where nobody can
	// sign in it always is.
	OpenLinks bool
}

// Retention is how long payloads and rows are kept once all is decided; 0: for
// ever.
type Retention struct{ Payloads, Deliveries time.Duration }

// Service is the gateway.
type Service struct {
	gatewayv1.UnimplementedWebhookServiceServer
	gatewayv1.UnimplementedStatusServiceServer
	gatewayv1.UnimplementedDeliveryServiceServer

	deps      Deps
	store     *store
	inbox     *inbox
	settler   *batcher[settlement]
	recovery  *recovery
	budget    budget
	allowlist *allowlist
	relays    []*relay
	outside   []*outsider
	people    *signin.Service
	access    *access.Control
	audit     *audit.Outbox
	engine    engineStatus
	handler   http.Handler
	tls       *tls.Config // nil: plain HTTP
	shown     shown

	serving    context.Context //nolint:containedctx // ends when Serve begins to stop; every followed log ends with it
	endServing context.CancelFunc
}

// New checks its settings and assembles the gateway. Nothing runs before Run.
func New(deps Deps) (*Service, error) {
	deps.Log = cmp.Or(deps.Log, slog.New(slog.DiscardHandler))
	deps.GitHub.URL = strings.TrimSuffix(cmp.Or(deps.GitHub.URL, "https://github.com"), "/")
	if deps.Tracer == nil {
		deps.Tracer = tracenoop.NewTracerProvider()
	}
	if deps.Meter == nil {
		deps.Meter = metricnoop.NewMeterProvider()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Random == nil {
		deps.Random = rand.Float64
	}
	if len(deps.Webhook.Secrets) == 0 {
		return nil, errors.New("FORGE_WEBHOOK_SECRETS: no webhook secret; it is the one on the GitHub App's settings page under 'Webhook'")
	}
	s := &Service{deps: deps, store: &store{deps.DB, deps.Outside.Receivers}}
	s.engine.client, s.engine.now = schedulerv1.NewEngineServiceClient(deps.Receivers["scheduler"]), deps.Now
	var err error
	if s.allowlist, err = newAllowlist(deps, s.store); err != nil {
		return nil, err
	}
	if s.tls, err = deps.TLS.config(deps.Log, deps.Now); err != nil {
		return nil, err
	}
	if s.tls != nil {
		s.shown.watch(s.tls)
	}
	meter := deps.Meter.Meter("forge/gateway")
	counted, err := newMetrics(meter)
	if err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	s.serving, s.endServing = context.WithCancel(context.Background())
	s.settler = newBatcher(s.store.settle)
	for _, name := range receivers() {
		r, err := newRelay(name, s.store, s.settler, counted, deps)
		if err != nil {
			return nil, err
		}
		s.relays = append(s.relays, r)
	}
	for _, receiver := range deps.Outside.Receivers {
		o, err := newOutsider(receiver, deps)
		if err != nil {
			return nil, err
		}
		s.outside = append(s.outside, o)
		s.relays = append(s.relays, newRelayOutside(o, s.store, s.settler, counted, deps))
	}
	s.inbox = newInbox(s.store, deps.Log, s.wake)
	s.recovery = newRecovery(deps, s.store, s.inbox)
	if s.handler, err = s.newHandler(); err != nil {
		return nil, err
	}
	if err := s.observe(meter); err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	return s, nil
}

// Register adds the gateway's services to a server.
func (s *Service) Register(reg grpc.ServiceRegistrar) {
	gatewayv1.RegisterWebhookServiceServer(reg, s)
	if s.deps.Traces != nil {
		traces.Intake{Store: s.deps.Traces}.Register(reg)
	}
	gatewayv1.RegisterStatusServiceServer(reg, s)
	gatewayv1.RegisterDeliveryServiceServer(reg, s)
}

// Run stores deliveries and relays them until ctx ends. Without it nothing is
// accepted.
func (s *Service) Run(ctx context.Context) error {
	if err := s.store.freeLeases(ctx, s.deps.Now()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("gateway: %w", err)
	}
	// What a relay has decided when it is stopped is written down still.
	settling, stopSettling := context.WithCancel(context.WithoutCancel(ctx))
	var settler errgroup.Group
	settler.Go(func() error { return s.settler.run(settling) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.inbox.run(ctx) })
	group.Go(func() error { return s.allowlist.run(ctx) })
	group.Go(func() error { return s.recovery.run(ctx) })
	group.Go(func() error { return s.prune(ctx) })
	group.Go(func() error { return s.people.Run(ctx) })
	group.Go(func() error { return s.audit.Run(ctx) })
	for _, relay := range s.relays {
		group.Go(func() error { return relay.loop.Run(ctx) })
	}
	err := group.Wait()
	for _, o := range s.outside {
		o.close()
	}
	stopSettling()
	return errors.Join(err, settler.Wait())
}

func (s *Service) wake() {
	for _, relay := range s.relays {
		relay.loop.Wake()
	}
}
