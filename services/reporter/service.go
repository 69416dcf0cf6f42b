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
	limiter   *limiter
	handoff   handoff
	metrics   *metrics
	alarm     *time.Timer // wakes the loop when an installation may call again
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
	if reportedAs()[deps.Report] == nil {
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
		tokens:    &tokenCache{config: configv1.NewTokenServiceClient(deps.Config), now: deps.Now, tokens: map[tokenKey]cachedToken{}},
		transport: kitgithub.NewTransport(),
		tracer:    deps.Tracer.Tracer("forge/reporter"),
		limiter:   newLimiter(deps.Now, deps.Spacing),
	}
	var err error
	if s.metrics, err = s.newMetrics(deps.Meter.Meter("forge/reporter")); err != nil {
		return nil, fmt.Errorf("reporter: %w", err)
	}
	if _, err := s.client(&tokenSource{}, s.transport); err != nil { // the address is checked once, here
		return nil, fmt.Errorf("reporter: %w", err)
	}
	s.loop = &due.Loop[target]{
		Name:    "tell GitHub",
		Workers: workers,
		Log:     deps.Log,
		Claim:   s.claim,
		Work:    s.publish,
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

// Run tells GitHub what is due until ctx ends. Without it reports are stored and
// wait.
func (s *Service) Run(ctx context.Context) error {
	defer s.transport.CloseIdleConnections()
	if err := s.store.freeLeases(ctx, s.deps.Now()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reporter: %w", err)
	}
	defer s.alarm.Stop()
	s.handoff.begin()
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return s.loop.Run(ctx) })
	running.Go(func() error { return s.every(ctx, verifyEvery, "reading back what GitHub shows", s.verify) })
	running.Go(func() error { return s.every(ctx, pruneEvery, "pruning targets", s.prune) })
	err := running.Wait()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	s.returnLeases(ending, s.handoff.end())
	return err
}

// every calls do, with pauses, until ctx ends.
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
			s.deps.Log.WarnContext(ctx, "a periodic task failed; it is tried again later", "task", what, "error", err)
		}
	}
}
