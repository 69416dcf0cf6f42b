package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/bulletin"
	"github.com/forge-ci/forge/services/scheduler/concurrency"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/outbox"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/registry"
	"github.com/forge-ci/forge/services/scheduler/schedule"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/shell"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/tests"
	"github.com/forge-ci/forge/services/scheduler/token"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Migrations are those of the scheduler's database.
func Migrations() fs.FS { return store.Migrations() }

// Instance is the name of the Forge that has this database, the same for all its
// replicas and for good: see store.Instance.
func Instance(ctx context.Context, db *sqldb.DB) (string, error) { return store.Instance(ctx, db) }

// RunnerCertificate is the same for all replicas: see secrets.RunnerCertificate.
func RunnerCertificate(ctx context.Context, db *sqldb.DB, keys [][]byte, host string, fresh func() (cert, key []byte, err error)) (cert, key []byte, err error) {
	return secrets.RunnerCertificate(ctx, db, keys, host, fresh)
}

// Deps is what the scheduler needs.
type Deps struct {
	DB *sqldb.DB
	// Blobs keeps the logs of what has ended. No other Forge has the same.
	Blobs            *blobs.Store
	Config, Reporter grpc.ClientConnInterface
	Engine           engine.Engine
	// Capacity is how many builds run at once, at least 1.
	Capacity int
	// Images builds images for image steps; nil: builds that have some are refused.
	Images attempt.Images
	// GitHubURL is where people see repositories.
	GitHubURL string
	// ExternalURL is where people reach Forge.
	ExternalURL string
	// SecretsKeys are of 32 bytes each: secrets are encrypted with the first and
	// decrypted with any.
	SecretsKeys [][]byte
	// RegistryCommands print what the server itself may show to registries.
	RegistryCommands []*registry.Command

	Policy    trigger.Policy
	Limits    attempt.Limits
	Contents  content.Limits
	Runners   attempt.Runners
	Trust     attempt.Trust
	Retention Retention
	// WebhooksOut are told of builds and deploys.
	WebhooksOut bulletin.Webhooks
	Chats       bulletin.Chats // without Secret

	Log    *slog.Logger
	Tracer trace.TracerProvider
	// ToolTracer is that of the spans which builds' tools make, as attempt.Deps has it.
	ToolTracer func() trace.TracerProvider
	Meter      metric.MeterProvider
	Now        func() time.Time
	Random     io.Reader
}

// Retention is how long what has ended, and the audit log, is kept; 0 is for good.
type Retention struct{ Logs, Builds, Audit time.Duration }

// Service is the scheduler. It serves events and builds, and runners apart.
type Service struct {
	schedulerv1.UnimplementedEventServiceServer
	schedulerv1.UnimplementedBuildServiceServer
	schedulerv1.UnimplementedEnvironmentServiceServer
	schedulerv1.UnimplementedEngineServiceServer
	deps Deps

	commits      configv1.CommitServiceClient
	store        *store.Store
	logs         *logs.Service
	secrets      *secrets.Service
	registries   *registry.Service
	inputs       *input.Service
	tokens       *token.Service
	contents     *content.Service
	tests        *tests.Service
	environments *environment.Service
	groups       *concurrency.Service
	outbox       *outbox.Service
	bulletin     *bulletin.Service
	attempts     *attempt.Service
	plan         *plan.Service
	schedules    *schedule.Service
	audit        *audit.Service
	shells       *shell.Service
	// wakes have the loop of a queue look at its rows.
	wakes map[store.Queue]func()
}

// New returns the scheduler; Run makes it work.
func New(deps Deps) (*Service, error) {
	if err := deps.Policy.Check(); err != nil {
		return nil, err
	}
	if deps.Capacity < 1 {
		return nil, errors.New("capacity: at least one build must be able to run")
	}
	if err := deps.Trust.Check(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
	}
	if deps.Meter == nil {
		deps.Meter = metricnoop.NewMeterProvider()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Random == nil {
		deps.Random = rand.Reader
	}
	tracer := deps.Tracer.Tracer("forge/scheduler")
	s := &Service{deps: deps, commits: configv1.NewCommitServiceClient(deps.Config)}
	s.store = store.New(deps.DB, deps.Now, func(q store.Queue) { s.wakes[q]() })
	var err error
	if s.logs, err = logs.New(logs.Deps{Store: s.store, Blobs: deps.Blobs, Limit: deps.Limits.Log, Log: deps.Log}); err != nil {
		return nil, err
	}
	if s.secrets, err = secrets.New(secrets.Deps{Store: s.store, Config: deps.Config, Keys: deps.SecretsKeys, Random: deps.Random, Log: deps.Log}); err != nil {
		return nil, err
	}
	s.registries = registry.New(registry.Deps{Store: s.store, Secrets: s.secrets, Commands: deps.RegistryCommands, Log: deps.Log})
	s.tokens = token.New(token.Deps{Store: s.store, Config: deps.Config, Random: deps.Random, Log: deps.Log})
	s.audit = audit.New(s.store, deps.Config)
	s.inputs = &input.Service{Store: s.store, Secrets: s.secrets}
	s.contents = content.New(content.Deps{
		Store: s.store, Blobs: deps.Blobs, Config: deps.Config, Limits: deps.Contents, Log: deps.Log, Random: deps.Random,
		Trusted: content.Trusted{Branches: slices.Concat(deps.Policy.IntegrationBranches, deps.Policy.ProductionBranches)},
	})
	s.environments = &environment.Service{Store: s.store, Policy: deps.Policy, Commits: s.commits}
	s.groups = &concurrency.Service{Trusted: slices.Concat(deps.Policy.IntegrationBranches, deps.Policy.ProductionBranches)}
	s.tests = tests.New(s.store)
	s.outbox = outbox.New(outbox.Deps{Store: s.store, Capacity: deps.Capacity, Logs: s.logs, Tests: s.tests, Reporter: deps.Reporter, Log: deps.Log})
	deps.Chats.Secret = s.secrets.Plain
	s.bulletin, err = bulletin.New(bulletin.Deps{
		Store: s.store, Webhooks: deps.WebhooksOut, Chats: deps.Chats, Source: deps.ExternalURL, Meter: deps.Meter.Meter("forge/scheduler"), Log: deps.Log,
	})
	if err != nil {
		return nil, err
	}
	s.store.OnMove = s.bulletin.Note
	s.shells = shell.New(shell.Deps{Store: s.store, Secrets: s.secrets, Config: deps.Config, Log: deps.Log, Random: deps.Random})
	s.attempts, err = attempt.New(attempt.Deps{
		Store: s.store, Logs: s.logs, Secrets: s.secrets, Registries: s.registries, Inputs: s.inputs, Contents: s.contents, Environments: s.environments, Groups: s.groups, Shells: s.shells, Engine: deps.Engine, Images: deps.Images, GitHub: deps.GitHubURL, Config: deps.Config,
		Capacity: deps.Capacity, Limits: deps.Limits, Runners: deps.Runners, Trust: deps.Trust, Log: deps.Log, Tracer: tracer, ToolTracer: deps.ToolTracer, Meter: deps.Meter.Meter("forge/scheduler"), Random: deps.Random,
	})
	if err != nil {
		return nil, err
	}
	s.plan = plan.New(plan.Deps{
		Store: s.store, Policy: deps.Policy, Environments: s.environments, Attempts: s.attempts, Inputs: s.inputs, Groups: s.groups, Config: deps.Config,
		ExternalURL: deps.ExternalURL, Remembered: deps.Retention.Builds, Tracer: tracer, Random: deps.Random,
	})
	s.schedules = schedule.New(schedule.Deps{Store: s.store, Plan: s.plan, Config: deps.Config, Log: deps.Log})
	s.wakes = map[store.Queue]func(){store.StartQueue: s.attempts.WakeStarts, store.StopQueue: s.attempts.WakeStops, store.ArchiveQueue: s.logs.Wake}
	s.wakes[store.ScheduleFileQueue], s.wakes[store.NoticeQueue] = s.schedules.Files.Wake, s.bulletin.Wake
	maps.Copy(s.wakes, s.outbox.Wakes())
	return s, nil
}

// Register serves what the gateway and people call.
func (s *Service) Register(reg grpc.ServiceRegistrar) {
	schedulerv1.RegisterEventServiceServer(reg, s)
	schedulerv1.RegisterBuildServiceServer(reg, s)
	schedulerv1.RegisterLogServiceServer(reg, &logService{service: s})
	schedulerv1.RegisterEnvironmentServiceServer(reg, s)
	schedulerv1.RegisterSecretServiceServer(reg, s.secrets)
	schedulerv1.RegisterCacheServiceServer(reg, s.contents)
	schedulerv1.RegisterArtifactServiceServer(reg, s.contents)
	schedulerv1.RegisterEngineServiceServer(reg, s)
	schedulerv1.RegisterScheduleServiceServer(reg, s.schedules)
	schedulerv1.RegisterTestServiceServer(reg, s.tests)
	schedulerv1.RegisterManualServiceServer(reg, manual{service: s})
	schedulerv1.RegisterRepositoryTokenServiceServer(reg, s.tokens)
	schedulerv1.RegisterAuditServiceServer(reg, s.audit)
	schedulerv1.RegisterOutgoingWebhookServiceServer(reg, s.bulletin)
	schedulerv1.RegisterShellServiceServer(reg, s.shells)
	schedulerv1.RegisterPreviewServiceServer(reg, previewService{store: s.store})
}

// Bound finds a token that is bound to a repository, for the server that serves the
// scheduler.
func (s *Service) Bound(ctx context.Context, secret string) (rpc.Bound, error) {
	return s.tokens.Bound(ctx, secret)
}

// RegisterRunner serves what runners call; on their listener, with nothing else.
func (s *Service) RegisterRunner(reg grpc.ServiceRegistrar) {
	s.attempts.RegisterRunner(reg)
}

// Access says who may call what. A runner shows a token of its own.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		schedulerv1.EventService_ReceiveEvent_FullMethodName:       {Rooms: []string{"gateway"}},
		schedulerv1.BuildService_ListRepositories_FullMethodName:   {},
		schedulerv1.BuildService_ListBuilds_FullMethodName:         {Bound: true},
		schedulerv1.BuildService_GetBuild_FullMethodName:           {Public: true},
		schedulerv1.BuildService_GetBuildStatistics_FullMethodName: {},
		schedulerv1.BuildService_WatchBuild_FullMethodName:         {Public: true},
		schedulerv1.BuildService_WatchLog_FullMethodName:           {Public: true},
		schedulerv1.BuildService_CancelBuild_FullMethodName:        {},
		schedulerv1.BuildService_ExpediteBuild_FullMethodName:      {},
		schedulerv1.BuildService_CreateBuild_FullMethodName:        {Bound: true},
		schedulerv1.BuildService_CreateRemoteBuild_FullMethodName:  {},
		schedulerv1.BuildService_RetryBuild_FullMethodName:         {},
		schedulerv1.BuildService_ApproveBuild_FullMethodName:       {},
		schedulerv1.RunnerService_Attach_FullMethodName:            {Public: true},
		schedulerv1.RunnerService_GetContent_FullMethodName:        {Public: true},
		schedulerv1.RunnerService_PutContent_FullMethodName:        {Public: true},
		schedulerv1.RunnerService_Keep_FullMethodName:              {Public: true},
		schedulerv1.RunnerService_Shell_FullMethodName:             {Public: true},
		schedulerv1.RunnerService_BuildImage_FullMethodName:        {Public: true},
		schedulerv1.EngineService_GetEngine_FullMethodName:         {Rooms: []string{"gateway"}},

		schedulerv1.LogService_GetLog_FullMethodName:    {Public: true},
		schedulerv1.LogService_ReadLog_FullMethodName:   {Public: true},
		schedulerv1.LogService_SearchLog_FullMethodName: {Public: true},

		schedulerv1.ScheduleService_ListSchedules_FullMethodName: {},

		schedulerv1.ShellService_OpenShell_FullMethodName:       {},
		schedulerv1.ShellService_SendToShell_FullMethodName:     {},
		schedulerv1.ShellService_RemoveContainer_FullMethodName: {},

		schedulerv1.OutgoingWebhookService_ListOutgoingWebhooks_FullMethodName: {},

		schedulerv1.ManualService_GetManual_FullMethodName: {Bound: true},

		schedulerv1.RepositoryTokenService_CreateRepositoryToken_FullMethodName: {},
		schedulerv1.RepositoryTokenService_ListRepositoryTokens_FullMethodName:  {},
		schedulerv1.RepositoryTokenService_DeleteRepositoryToken_FullMethodName: {},

		schedulerv1.AuditService_ListAuditEntries_FullMethodName:   {},
		schedulerv1.AuditService_RecordAuditEntries_FullMethodName: {Rooms: []string{"gateway"}, NoAdmin: true},

		schedulerv1.PreviewService_ListPreviewedPullRequests_FullMethodName: {Rooms: []string{"gateway"}},

		schedulerv1.EnvironmentService_ListEnvironments_FullMethodName:    {},
		schedulerv1.EnvironmentService_GetEnvironment_FullMethodName:      {},
		schedulerv1.EnvironmentService_FreezeEnvironment_FullMethodName:   {},
		schedulerv1.EnvironmentService_UnfreezeEnvironment_FullMethodName: {},
		schedulerv1.EnvironmentService_RollBackEnvironment_FullMethodName: {},
		schedulerv1.EnvironmentService_ReleaseEnvironment_FullMethodName:  {},

		schedulerv1.CacheService_ListCaches_FullMethodName:   {},
		schedulerv1.CacheService_DeleteCaches_FullMethodName: {},

		schedulerv1.ArtifactService_ListArtifacts_FullMethodName:     {Public: true},
		schedulerv1.ArtifactService_ListArtifactFiles_FullMethodName: {Public: true},
		schedulerv1.ArtifactService_DownloadArtifact_FullMethodName:  {Public: true},
		schedulerv1.TestService_ListTests_FullMethodName:             {Public: true},
		schedulerv1.TestService_ListFindings_FullMethodName:          {Public: true},
		schedulerv1.TestService_ListFlakyTests_FullMethodName:        {},
		schedulerv1.TestService_ListTestHistory_FullMethodName:       {},

		schedulerv1.SecretService_SetSecret_FullMethodName:    {},
		schedulerv1.SecretService_ListSecrets_FullMethodName:  {},
		schedulerv1.SecretService_DeleteSecret_FullMethodName: {},

		schedulerv1.SecretService_SetRegistryCredentials_FullMethodName:    {},
		schedulerv1.SecretService_ListRegistryCredentials_FullMethodName:   {},
		schedulerv1.SecretService_DeleteRegistryCredentials_FullMethodName: {},
	}
}

// Run places builds, tells of them and looks after them until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.store.FreeLeases(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	if err := s.secrets.Renew(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	follow := func(ctx context.Context) error { return s.store.FollowChanges(ctx, s.deps.Log) }
	for _, run := range []func(context.Context) error{follow, s.attempts.Run, s.outbox.Run, s.bulletin.Run, s.logs.Run, s.schedules.Run, s.shells.Run, s.contents.Run, s.pruneOften} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}
