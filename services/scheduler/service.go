package scheduler

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the scheduler's database.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

// Deps is what the scheduler needs.
type Deps struct {
	DB *sqldb.DB
	// Blobs keeps the logs of what has ended. No other Forge has the same.
	Blobs            *blobs.Store
	Config, Reporter grpc.ClientConnInterface
	Engine           engine.Engine
	// Capacity is how many builds run at once, at least 1.
	Capacity                                int
	IntegrationBranches, ProductionBranches []string
	// ForkPolicy is approve, run or never.
	ForkPolicy string
	// ExternalURL is where people reach Forge.
	ExternalURL string
	// RunnerURL is what forgexec dials, RunnerCA the PEM of whom it trusts there:
	// see Runner.
	RunnerURL, RunnerCA string
	// Timeout counts where .forge.yml names none, MaxTimeout in any case.
	// Default: 1 and 6 hours.
	Timeout, MaxTimeout time.Duration
	// Grace is the time from SIGTERM to SIGKILL, Heartbeat how often a runner
	// is heard. Default: 10 and 5 seconds.
	Grace, Heartbeat time.Duration
	// CPUs in cores and Memory in bytes count where .forge.yml names none, MaxCPUs
	// and MaxMemory in any case; 0 is no limit.
	CPUs, MaxCPUs     float64
	Memory, MaxMemory int64
	// LogLimit is how many bytes the log of an attempt may have, but for the
	// runner's words; 0 is no limit.
	LogLimit int64
	// SecretsKeys are of 32 bytes each: secrets are encrypted with the first and
	// decrypted with any.
	SecretsKeys [][]byte
	// PortAllowed reports whether builds may have a port of the host; nil is none.
	PortAllowed func(port int32) bool
	// TrustedRepositories are patterns of owner/name. What is merged or pushed there may
	// run privileged and have Volumes, folders of the host by name.
	TrustedRepositories []string
	Volumes             map[string]string
	// LogRetention and BuildRetention are how long what has ended is kept; 0 is
	// for good.
	LogRetention, BuildRetention time.Duration

	Log    *slog.Logger
	Tracer trace.TracerProvider
	Now    func() time.Time
	Random io.Reader
}

// Service is the scheduler. It serves events and builds, and runners apart.
type Service struct {
	schedulerv1.UnimplementedEventServiceServer
	schedulerv1.UnimplementedBuildServiceServer
	schedulerv1.UnimplementedEnvironmentServiceServer
	schedulerv1.UnimplementedSecretServiceServer
	Deps

	tracer        trace.Tracer
	store         *store
	hub           *hub
	feeds         *feeds
	pack          *zstd.Encoder
	unpack        *zstd.Decoder
	keyring       *keyring
	configs       configv1.BuildConfigServiceClient
	sources       configv1.SourceServiceClient
	commits       configv1.CommitServiceClient
	pulls         configv1.PullRequestServiceClient
	collaborators configv1.CollaboratorServiceClient
	repositories  configv1.RepositoryServiceClient
	reporter      reporterv1.ReportServiceClient

	starts     *due.Loop[start]
	stops      *due.Loop[stop]
	reports    *due.Loop[target]
	promotions *due.Loop[promotion]
	answers    *due.Loop[answer]
	archives   *due.Loop[archive]
}

// New returns the scheduler; Run makes it work.
func New(deps Deps) (*Service, error) {
	switch deps.ForkPolicy {
	case forkApprove, forkRun, forkNever:
	default:
		return nil, fmt.Errorf("fork policy %q: use approve, run or never", deps.ForkPolicy)
	}
	if deps.Capacity < 1 {
		return nil, errors.New("capacity: at least one build must be able to run")
	}
	if err := deps.checkTrust(); err != nil {
		return nil, err
	}
	deps.Timeout = cmp.Or(deps.Timeout, time.Hour)
	deps.MaxTimeout = cmp.Or(deps.MaxTimeout, 6*time.Hour)
	deps.Grace = cmp.Or(deps.Grace, 10*time.Second)
	deps.Heartbeat = cmp.Or(deps.Heartbeat, 5*time.Second)
	deps.ExternalURL = strings.TrimSuffix(deps.ExternalURL, "/")
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Random == nil {
		deps.Random = rand.Reader
	}
	s := &Service{
		Deps:          deps,
		tracer:        deps.Tracer.Tracer("forge/scheduler"),
		store:         &store{db: deps.DB, now: deps.Now},
		hub:           newHub(),
		configs:       configv1.NewBuildConfigServiceClient(deps.Config),
		sources:       configv1.NewSourceServiceClient(deps.Config),
		commits:       configv1.NewCommitServiceClient(deps.Config),
		pulls:         configv1.NewPullRequestServiceClient(deps.Config),
		collaborators: configv1.NewCollaboratorServiceClient(deps.Config),
		reporter:      reporterv1.NewReportServiceClient(deps.Reporter),
		repositories:  configv1.NewRepositoryServiceClient(deps.Config),
	}
	s.feeds = &feeds{hub: s.hub, look: s.lookAtLog, pages: s.pages, live: map[string]*feed{}}
	var err error
	if s.pack, s.unpack, err = newPacker(); err != nil {
		return nil, err
	}
	if s.keyring, err = newKeyring(deps.SecretsKeys, deps.Random); err != nil {
		return nil, err
	}
	s.starts = &due.Loop[start]{Name: "starts", Workers: deps.Capacity, Log: deps.Log, Claim: s.claimStarts, Renew: s.renewStart, Work: s.start}
	s.stops = &due.Loop[stop]{Name: "stops", Workers: deps.Capacity, Log: deps.Log, Claim: s.store.claimStops, Renew: s.store.renewStop, Work: s.stop}
	s.reports = &due.Loop[target]{Name: "reports", Workers: 8, Log: deps.Log, Claim: s.store.claimTargets, Work: s.report}
	s.promotions = &due.Loop[promotion]{Name: "promotions", Workers: 2, Log: deps.Log, Claim: s.store.claimPromotions, Work: s.promote}
	s.archives = &due.Loop[archive]{Name: "archives", Workers: 2, Poll: archiveAfter, Log: deps.Log, Claim: s.store.claimArchives, Renew: s.store.renewArchive, Work: s.archiveLog}
	s.answers = &due.Loop[answer]{Name: "answers", Workers: 2, Log: deps.Log, Claim: s.store.claimAnswers, Work: s.answer}
	return s, nil
}

// Register serves what the gateway and people call.
func (s *Service) Register(reg grpc.ServiceRegistrar) {
	schedulerv1.RegisterEventServiceServer(reg, s)
	schedulerv1.RegisterBuildServiceServer(reg, s)
	schedulerv1.RegisterEnvironmentServiceServer(reg, s)
	schedulerv1.RegisterSecretServiceServer(reg, s)
}

// RegisterRunner serves what runners call; on their listener, with nothing else.
func (s *Service) RegisterRunner(reg grpc.ServiceRegistrar) {
	schedulerv1.RegisterRunnerServiceServer(reg, runnerService{service: s})
}

// Access says who may call what. A runner shows a token of its own.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		schedulerv1.EventService_ReceiveEvent_FullMethodName: {Rooms: []string{"gateway"}},
		schedulerv1.BuildService_ListBuilds_FullMethodName:   {},
		schedulerv1.BuildService_GetBuild_FullMethodName:     {Public: true},
		schedulerv1.BuildService_WatchBuild_FullMethodName:   {Public: true},
		schedulerv1.BuildService_WatchLog_FullMethodName:     {Public: true},
		schedulerv1.BuildService_CancelBuild_FullMethodName:  {},
		schedulerv1.BuildService_CreateBuild_FullMethodName:  {},
		schedulerv1.BuildService_RetryBuild_FullMethodName:   {},
		schedulerv1.BuildService_ApproveBuild_FullMethodName: {},
		schedulerv1.RunnerService_Attach_FullMethodName:      {Public: true},

		schedulerv1.EnvironmentService_ListEnvironments_FullMethodName:    {},
		schedulerv1.EnvironmentService_GetEnvironment_FullMethodName:      {},
		schedulerv1.EnvironmentService_FreezeEnvironment_FullMethodName:   {},
		schedulerv1.EnvironmentService_UnfreezeEnvironment_FullMethodName: {},
		schedulerv1.EnvironmentService_RollBackEnvironment_FullMethodName: {},

		schedulerv1.SecretService_SetSecret_FullMethodName:    {},
		schedulerv1.SecretService_ListSecrets_FullMethodName:  {},
		schedulerv1.SecretService_DeleteSecret_FullMethodName: {},
	}
}

// Run places builds, tells of them and looks after them until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.store.freeLeases(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	if err := s.renewSecrets(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		s.starts.Run, s.stops.Run, s.reports.Run, s.promotions.Run, s.answers.Run, s.archives.Run,
		s.sweepOften, s.pruneOften,
	} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// write makes a change and, once it is committed, tells those who wait for it.
func (s *Service) write(ctx context.Context, do func(ctx context.Context, t *tx) error) error {
	news, err := s.store.write(ctx, do)
	if err != nil {
		return err
	}
	for _, p := range news.printed {
		s.feeds.printed(p)
	}
	s.hub.notify(news.topics...)
	if news.starts {
		s.starts.Wake()
	}
	if news.stops {
		s.stops.Wake()
	}
	if news.reports {
		s.reports.Wake()
	}
	if news.promotions {
		s.promotions.Wake()
	}
	if news.answers {
		s.answers.Wake()
	}
	if news.archives {
		s.archives.Wake()
	}
	return nil
}
