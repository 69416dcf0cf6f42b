package reporter

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/due"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the goose files of the reporter's database.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a valid one
	}
	return sub
}

// Access is who may call the reporter's methods.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		reporterv1.ReportService_Report_FullMethodName:         {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Promote_FullMethodName:        {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Answer_FullMethodName:         {Rooms: []string{"scheduler"}},
		reporterv1.EventService_ReceiveEvent_FullMethodName:    {Rooms: []string{"gateway"}},
		reporterv1.ReporterService_ListTargets_FullMethodName:  {},
		reporterv1.ReporterService_GetTarget_FullMethodName:    {},
		reporterv1.ReporterService_RetryTarget_FullMethodName:  {},
		reporterv1.ReporterService_VerifyTarget_FullMethodName: {},
	}
}

// Deps is what the reporter works with. Only DB and Config are needed.
type Deps struct {
	DB           *sqldb.DB
	Config       grpc.ClientConnInterface
	GitHubAPIURL string // "": https://api.github.com
	// Report is how builds are told: statuses, checks or both; "": statuses.
	Report string
	// Retention is how long what GitHub was told, or will not be told any more, is
	// remembered; 0: 30 days.
	Retention time.Duration
	// Spacing is how far apart an installation's calls are at the most while GitHub
	// refuses some as too many; 0: the second that GitHub advises.
	Spacing time.Duration

	Log    *slog.Logger
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	Now    func() time.Time
	Random func() float64 // in [0, 1)
}

// Service is the reporter.
type Service struct {
	reporterv1.UnimplementedReportServiceServer
	reporterv1.UnimplementedEventServiceServer
	reporterv1.UnimplementedReporterServiceServer

	deps      Deps
	store     *store
	tokens    *tokenCache
	transport *http.Transport
	tracer    trace.Tracer
	loop      *due.Loop[target]
	gate      *gate
	handover  handover
	metrics   *metrics
	alarm     *time.Timer // wakes the loop when a gate opens
}

const (
	workers = 16

	defaultReport    = "statuses"
	defaultRetention = 30 * 24 * time.Hour
	// GitHub's advice: a second between requests that change something.
	// https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
	defaultSpacing = time.Second
)

// New assembles the reporter. Nothing is told before Run.
func New(deps Deps) (*Service, error) {
	deps.Log = cmp.Or(deps.Log, slog.New(slog.DiscardHandler))
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
	}
	if deps.Meter == nil {
		deps.Meter = metricnoop.NewMeterProvider()
	}
	deps.Report = cmp.Or(deps.Report, defaultReport)
	deps.Retention = cmp.Or(deps.Retention, defaultRetention)
	deps.Spacing = cmp.Or(deps.Spacing, defaultSpacing)
	if reports()[deps.Report] == nil {
		return nil, fmt.Errorf("reporter: told as %q: expected statuses, checks or both", deps.Report)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Random == nil {
		deps.Random = rand.Float64
	}
	s := &Service{
		deps:      deps,
		store:     &store{deps.DB},
		tokens:    &tokenCache{config: configv1.NewTokenServiceClient(deps.Config), now: deps.Now, kept: map[tokenKey]keptToken{}},
		transport: kitgithub.NewTransport(),
		tracer:    deps.Tracer.Tracer("forge/reporter"),
		gate:      newGate(deps.Now, deps.Spacing),
	}
	var err error
	if s.metrics, err = s.newMetrics(deps.Meter.Meter("forge/reporter")); err != nil {
		return nil, fmt.Errorf("reporter: %w", err)
	}
	if _, err := s.client(&source{}, s.transport); err != nil { // the address is checked once, here
		return nil, fmt.Errorf("reporter: %w", err)
	}
	s.loop = &due.Loop[target]{
		Name:    "tell GitHub",
		Workers: workers,
		Log:     deps.Log,
		Claim:   s.claim,
		Work:    s.work,
	}
	s.alarm = time.AfterFunc(time.Hour, s.wake)
	s.alarm.Stop() // until Run
	return s, nil
}

// Register adds the reporter's services to a server.
func (s *Service) Register(reg grpc.ServiceRegistrar) {
	reporterv1.RegisterReportServiceServer(reg, s)
	reporterv1.RegisterEventServiceServer(reg, s)
	reporterv1.RegisterReporterServiceServer(reg, s)
}

// claim takes what was handed over, and leases what else is due and may be told
// now.
func (s *Service) claim(ctx context.Context, limit int) ([]target, error) {
	leased, look := s.handover.take(limit)
	if !look {
		return leased, nil
	}
	now, opens := s.deps.Now(), time.Time{}
	var entered []target
	claimed, err := s.store.claim(ctx, limit-len(leased), now, leaseUntil(now), func(t target) bool {
		if !s.handover.reserve() {
			return false
		}
		ok, again := s.gate.enter(t.installationID, t.want.unfinished())
		if ok {
			entered = append(entered, t)
			return true
		}
		s.handover.free()
		if !again.IsZero() && (opens.IsZero() || again.Before(opens)) {
			opens = again
		}
		return false
	})
	if err != nil {
		s.unlease(entered)
		s.deps.Log.WarnContext(ctx, "due targets not claimed, tried again", "error", err)
		return leased, nil
	}
	if !opens.IsZero() {
		s.alarm.Reset(opens.Sub(now))
	}
	return append(leased, claimed...), nil
}

// Run tells GitHub what is due until ctx ends. Without it reports are stored and
// wait.
func (s *Service) Run(ctx context.Context) error {
	defer s.transport.CloseIdleConnections()
	if err := s.store.freeLeases(ctx, s.deps.Now()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reporter: %w", err)
	}
	defer s.alarm.Stop()
	s.handover.begin()
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return s.loop.Run(ctx) })
	running.Go(func() error { return s.every(ctx, sweepEvery, "read back what GitHub shows", s.sweep) })
	running.Go(func() error { return s.every(ctx, pruneEvery, "prune targets", s.prune) })
	err := running.Wait()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	s.giveUp(ending, s.handover.end())
	return err
}

// every does something again and again until ctx ends.
func (s *Service) every(ctx context.Context, pause time.Duration, what string, do func(context.Context) error) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "done again later", "what", what, "error", err)
		}
	}
}
