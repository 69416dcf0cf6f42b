package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// rig is a scheduler with everything around it: a config and a reporter that
// serve their contracts, an engine in memory, a clock that stands still.
type rig struct {
	t        *testing.T
	open     func() *sqldb.DB
	blobs    string // the folder they are in
	clock    *kittest.Clock
	spans    *tracetest.SpanRecorder
	engine   *memoryEngine
	config   *fakeConfig
	reporter *fakeReporter
	github   *fakeGitHub
	deps     Deps

	service *Service
	builds  schedulerv1.BuildServiceClient // as the admin
	people  schedulerv1.BuildServiceClient // as the gateway, for people
	events  schedulerv1.EventServiceClient
	runners schedulerv1.RunnerServiceClient
	runner  *grpc.ClientConn                     // of runners
	places  schedulerv1.EnvironmentServiceClient // as the admin
	secrets schedulerv1.SecretServiceClient      // as the admin
	times   schedulerv1.ScheduleServiceClient    // as the admin
	tests   schedulerv1.TestServiceClient        // as the admin
	manual  schedulerv1.ManualServiceClient      // as the admin
	log     schedulerv1.LogServiceClient         // as anyone
	nobody  grpc.ClientConnInterface             // for calls with whatever a test shows
	gateway grpc.ClientConnInterface             // as the gateway
	halt    func()
}

// each runs a test on each database, with the scheduler at work.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		r := newRig(t, open)
		r.start()
		test(t, r)
	})
}

func newRig(t *testing.T, open func() *sqldb.DB) *rig {
	r := &rig{
		t: t, open: open, blobs: t.TempDir(), spans: tracetest.NewSpanRecorder(),
		clock:    kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)),
		engine:   &memoryEngine{containers: map[string]engine.Container{}, specs: map[string]engine.Spec{}},
		config:   &fakeConfig{answers: map[string]*configv1.GetBuildConfigResponse{}, source: []string{"tar", "ball"}},
		reporter: &fakeReporter{}, github: newGitHub(),
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans), sdktrace.WithIDGenerator(telemetry.IDs()))
	tools := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans), sdktrace.WithIDGenerator(telemetry.IDs()))
	siblings := rpc.NewPipe()
	server := rpc.NewServer(rpc.Config{Name: "siblings", Access: map[string]rpc.Access{
		configv1.BuildConfigService_GetBuildConfig_FullMethodName:     {Rooms: []string{"scheduler"}},
		configv1.SourceService_PrepareSource_FullMethodName:           {Rooms: []string{"scheduler"}},
		configv1.SourceService_GetSource_FullMethodName:               {Rooms: []string{"scheduler"}},
		configv1.SourceService_Merge_FullMethodName:                   {Rooms: []string{"scheduler"}},
		configv1.CollaboratorService_GetPermission_FullMethodName:     {Rooms: []string{"scheduler"}},
		configv1.CollaboratorService_GetTeamMembership_FullMethodName: {Rooms: []string{"scheduler"}},
		configv1.PullRequestService_GetPullRequest_FullMethodName:     {Rooms: []string{"scheduler"}},
		configv1.CommitService_GetCommit_FullMethodName:               {Rooms: []string{"scheduler"}},
		configv1.CommitService_FindCommit_FullMethodName:              {Rooms: []string{"scheduler"}},
		configv1.RepositoryService_GetRepository_FullMethodName:       {Rooms: []string{"scheduler"}},
		configv1.CommitService_CompareCommits_FullMethodName:          {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Report_FullMethodName:                {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Promote_FullMethodName:               {Rooms: []string{"scheduler"}},
		reporterv1.ReportService_Answer_FullMethodName:                {Rooms: []string{"scheduler"}},
	}})
	configv1.RegisterBuildConfigServiceServer(server, r.config)
	configv1.RegisterSourceServiceServer(server, r.config)
	configv1.RegisterCollaboratorServiceServer(server, r.github)
	configv1.RegisterRepositoryServiceServer(server, r.github)
	configv1.RegisterPullRequestServiceServer(server, r.github)
	configv1.RegisterCommitServiceServer(server, r.config)
	reporterv1.RegisterReportServiceServer(server, r.reporter)
	stop := serve(t, server, siblings)
	conn := dial(t, siblings, "scheduler")
	t.Cleanup(func() { conn.Close(); stop() })
	r.deps = Deps{
		Blobs: blobsIn(t, r.blobs), Config: conn, Reporter: conn, Engine: r.engine, Capacity: 2,
		Policy:      trigger.Policy{IntegrationBranches: []string{"main"}, ProductionBranches: []string{"production"}, Forks: trigger.ForkApprove},
		SecretsKeys: [][]byte{bytes.Repeat([]byte("k"), 32)}, ExternalURL: "https://forge.example/", Runners: attempt.Runners{URL: "unix:///run/forge/runner.sock"}, Limits: attempt.Limits{MaxKeep: time.Hour},
		Log: slog.New(strict{kittest.Log(t).Handler(), t}), Tracer: provider, Now: r.clock.Now,
		ToolTracer: func() trace.TracerProvider { return tools },
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// blobsIn keeps blobs as files under dir.
func blobsIn(t testing.TB, dir string) *blobs.Store {
	t.Helper()
	store, err := blobs.Open(t.Context(), blobs.Config{Dir: dir, Room: "scheduler"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// strict fails the test at what PostgreSQL makes of a statement, which loops
// would only log.
type strict struct {
	slog.Handler
	t *testing.T
}

func (s strict) Handle(ctx context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if strings.Contains(a.Value.String(), "SQLSTATE 42") {
			s.t.Errorf("%s: %s", record.Message, a.Value)
		}
		return true
	})
	return s.Handler.Handle(ctx, record)
}

func dial(t *testing.T, pipe *rpc.Pipe, room string) *grpc.ClientConn {
	conn, err := pipe.Dial(room, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func serve(t *testing.T, server *rpc.Server, pipe *rpc.Pipe) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

// start opens the database and sets the scheduler to work, again after a stop.
func (r *rig) start() {
	r.t.Helper()
	db := r.open()
	r.deps.DB = db
	service, err := New(r.deps)
	if err != nil {
		r.t.Fatal(err)
	}
	r.service = service
	const token = "admin-token"
	pipe, runnerPipe := rpc.NewPipe(), rpc.NewPipe()
	server := rpc.NewServer(rpc.Config{Name: "scheduler", Access: Access(), AdminToken: token, Bound: service.Bound, Behalf: []string{"gateway"}, Log: r.deps.Log})
	service.Register(server)
	runnerServer := rpc.NewServer(rpc.Config{Name: "runners", Access: Access(), Log: r.deps.Log})
	service.RegisterRunner(runnerServer)
	stops := []func(){serve(r.t, server, pipe), serve(r.t, runnerServer, runnerPipe)}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()

	gateway, admin, runner := dial(r.t, pipe, "gateway"), dial(r.t, pipe, ""), dial(r.t, runnerPipe, "")
	r.events = schedulerv1.NewEventServiceClient(gateway)
	r.builds = schedulerv1.NewBuildServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.people = schedulerv1.NewBuildServiceClient(gateway)
	r.places = schedulerv1.NewEnvironmentServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.times = schedulerv1.NewScheduleServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.secrets = schedulerv1.NewSecretServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.nobody, r.gateway = admin, gateway
	r.manual = schedulerv1.NewManualServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.log = schedulerv1.NewLogServiceClient(admin)
	r.tests = schedulerv1.NewTestServiceClient(withHeader{admin, "authorization", "Bearer " + token})
	r.runners, r.runner = schedulerv1.NewRunnerServiceClient(runner), runner
	r.halt = func() {
		for _, conn := range []*grpc.ClientConn{gateway, admin, runner} {
			conn.Close()
		}
		for _, stop := range stops {
			stop()
		}
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
		if err := db.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	}
}

func (r *rig) stop() {
	if r.halt != nil {
		r.halt()
		r.halt = nil
	}
}

// withHeader is a connection whose calls carry a header.
type withHeader struct {
	grpc.ClientConnInterface
	name, value string
}

func (w withHeader) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return w.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, w.name, w.value), method, args, reply, opts...)
}

func (w withHeader) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return w.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, w.name, w.value), desc, method, opts...)
}

// wake has every loop look again, as its poll would after a while.
func (r *rig) wake() {
	r.service.attempts.Starts.Wake()
	r.service.attempts.Stops.Wake()
	r.service.outbox.Reports.Wake()
	r.service.outbox.Promotions.Wake()
	r.service.logs.Archives.Wake()
	r.service.outbox.Answers.Wake()
	r.service.schedules.Files.Wake()
	r.service.schedules.Runs.Wake()
}

func (r *rig) sweep() {
	r.t.Helper()
	if err := r.service.attempts.Sweep(r.t.Context()); err != nil {
		r.t.Fatalf("sweep: %v", err)
	}
}

// The events that tests send are changed from these.
func repository() *eventv1.Repository {
	return &eventv1.Repository{Id: 7, Owner: "Acme", Name: "shop", DefaultBranch: "main"}
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func opened(number int32, sha string) *eventv1.Event {
	return &eventv1.Event{
		DeliveryId: "opened-" + sha + "-" + strconv.Itoa(int(number)), Name: "pull_request", Action: "opened",
		InstallationId: 3, Repository: repository(), Sender: &eventv1.Account{Login: "ada"},
		Payload: &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{PullRequest: &eventv1.PullRequest{
			Number: number, Title: "Add a till", HtmlUrl: "https://github.example/acme/shop/pull/1", Open: true, CommitCount: 2,
			Head:       &eventv1.PullRequestBranch{Ref: "till", Sha: sha, Repository: repository()},
			Base:       &eventv1.PullRequestBranch{Ref: "main", Sha: "base", Repository: repository()},
			UpdateTime: timestamppb.New(noon),
		}}},
	}
}

func synchronize(before, sha string, at time.Time) *eventv1.Event {
	e := opened(1, sha)
	e.DeliveryId, e.Action = "synchronize-"+before+"-"+sha, "synchronize"
	e.GetPullRequest().Before, e.GetPullRequest().After = before, sha
	e.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(at)
	return e
}

func mergedInto(number int32, base, sha string) *eventv1.Event {
	e := opened(number, "head-of-"+sha)
	e.DeliveryId, e.Action = "merged-"+sha, "closed"
	pull := e.GetPullRequest().GetPullRequest()
	pull.Open, pull.Merged, pull.MergeCommitSha, pull.Base.Ref = false, true, sha, base
	pull.UpdateTime, pull.CloseTime = timestamppb.New(noon.Add(time.Hour)), timestamppb.New(noon.Add(time.Hour))
	return e
}

// send delivers an event and returns the decision.
func (r *rig) send(e *eventv1.Event) *eventv1.Decision {
	r.t.Helper()
	answer, err := r.events.ReceiveEvent(r.t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
	if err != nil {
		r.t.Fatalf("%s: %v", e.GetDeliveryId(), err)
	}
	return answer.GetDecision()
}

// built sends an event that must lead to a build of its own.
func (r *rig) built(e *eventv1.Event) string {
	r.t.Helper()
	d := r.send(e)
	if d.GetReason() != eventv1.Reason_REASON_BUILT || len(d.GetBuildIds()) == 0 {
		r.t.Fatalf("%s: %v, want it built", e.GetDeliveryId(), d)
	}
	return d.GetBuildIds()[0]
}

func (r *rig) build(id string) *schedulerv1.Build {
	r.t.Helper()
	answer, err := r.builds.GetBuild(r.t.Context(), &schedulerv1.GetBuildRequest{BuildId: id})
	if err != nil {
		r.t.Fatalf("build %s: %v", id, err)
	}
	return answer.GetBuild()
}

// becomes waits for a build to be in a state and returns it.
func (r *rig) becomes(id string, state schedulerv1.Build_State) *schedulerv1.Build {
	r.t.Helper()
	var b *schedulerv1.Build
	kittest.Eventually(r.t, patience, func() error {
		if b = r.build(id); b.GetState() != state {
			return fmt.Errorf("build %s is %v (%s), want %v", id, b.GetState(), b.GetMessage(), state)
		}
		return nil
	})
	return b
}

// spec waits for a container to be started.
func (r *rig) spec(id string, number int32) engine.Spec {
	r.t.Helper()
	var spec engine.Spec
	kittest.Eventually(r.t, patience, func() error {
		r.engine.mu.Lock()
		defer r.engine.mu.Unlock()
		var ok bool
		if spec, ok = r.engine.specs[store.AttemptName(id, number)]; !ok {
			return errors.New("not started: " + store.AttemptName(id, number))
		}
		return nil
	})
	return spec
}

// shown waits until the reporter holds a state for a target.
func (r *rig) shown(sha, name string, state schedulerv1.Build_State) *schedulerv1.Build {
	r.t.Helper()
	var b *schedulerv1.Build
	kittest.Eventually(r.t, patience, func() error {
		if b = r.reporter.shows(sha, name).GetBuild(); b.GetState() != state {
			return fmt.Errorf("%s at %s is shown as %v, want %v", name, sha, b.GetState(), state)
		}
		return nil
	})
	return b
}

func texts(decisions ...*eventv1.Decision) []string {
	var all []string
	for _, d := range decisions {
		all = append(all, d.GetText())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sqliteRig is for what no database can make a difference to. It is not started.
func sqliteRig(t *testing.T) *rig {
	dir := kittest.SQLiteDir(t, "scheduler", Migrations())
	return newRig(t, func() *sqldb.DB {
		db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: "scheduler", Migrations: Migrations()})
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
}

// eachStopped is each for tests that start the scheduler themselves.
func eachStopped(t *testing.T, test func(t *testing.T, r *rig)) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) { test(t, newRig(t, open)) })
}
