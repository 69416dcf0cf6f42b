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

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
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
		reporterv1.ReportService_Report_FullMethodName:        {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Promote_FullMethodName:       {Rooms: []string{"scheduler"}},
		reporterv1.EventService_ReceiveEvent_FullMethodName:   {Rooms: []string{"gateway"}},
		reporterv1.ReporterService_ListTargets_FullMethodName: {},
		reporterv1.ReporterService_GetTarget_FullMethodName:   {},
	}
}

// Deps is what the reporter works with. Log, Tracer, Now and Random may be left
// out.
type Deps struct {
	DB           *sqldb.DB
	Config       grpc.ClientConnInterface
	GitHubAPIURL string // "": https://api.github.com

	Log    *slog.Logger
	Tracer trace.TracerProvider
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
	tokens    configv1.TokenServiceClient
	transport *http.Transport
	tracer    trace.Tracer
	loop      *due.Loop[target]
}

const workers = 8

// New assembles the reporter. Nothing is told before Run.
func New(deps Deps) (*Service, error) {
	deps.Log = cmp.Or(deps.Log, slog.New(slog.DiscardHandler))
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
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
		tokens:    configv1.NewTokenServiceClient(deps.Config),
		transport: kitgithub.NewTransport(),
		tracer:    deps.Tracer.Tracer("forge/reporter"),
	}
	if _, err := s.client(&source{}); err != nil { // the address is checked once, here
		return nil, fmt.Errorf("reporter: %w", err)
	}
	s.loop = &due.Loop[target]{
		Name:    "tell GitHub",
		Workers: workers,
		Log:     deps.Log,
		Claim: func(ctx context.Context, limit int) ([]target, error) {
			now := deps.Now()
			return s.store.claim(ctx, limit, now, now.Add(lease))
		},
		Work: s.work,
	}
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
	if err := s.store.freeLeases(ctx, s.deps.Now()); err != nil {
		return fmt.Errorf("reporter: %w", err)
	}
	return s.loop.Run(ctx)
}
