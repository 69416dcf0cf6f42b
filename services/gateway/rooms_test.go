package gateway

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// rooms plays config, scheduler and reporter.
type rooms struct {
	mu     sync.Mutex
	got    map[string][]*eventv1.Event
	answer map[string]func(*eventv1.Event) (*eventv1.Decision, error) // nil: noted

	builds
	lines  logLines
	left   leftovers
	engine fakeEngine
	tests  fakeTests
	audit  auditLog
	shells fakeShells
	told   toldGitHub

	installed installed
	places    places
	previews  previews

	repositories func(owner, name string) (*eventv1.Repository, error)
}

// installed is where config says that the App is installed.
type installed struct {
	configv1.UnimplementedInstallationServiceServer
	all []*configv1.Installation
}

func (i *installed) ListInstallations(context.Context, *configv1.ListInstallationsRequest) (*configv1.ListInstallationsResponse, error) {
	return &configv1.ListInstallationsResponse{Installations: i.all}, nil
}

// fakeTests is what the scheduler says of the tests of a build.
type fakeTests struct {
	schedulerv1.UnimplementedTestServiceServer
	tests    []*schedulerv1.Test
	summary  *schedulerv1.TestSummary
	findings []*schedulerv1.Finding
	err      error
}

func (f *fakeTests) ListTests(_ context.Context, req *schedulerv1.ListTestsRequest) (*schedulerv1.ListTestsResponse, error) {
	answer := &schedulerv1.ListTestsResponse{Summary: f.summary}
	for _, test := range f.tests {
		if len(req.GetStates()) == 0 || slices.Contains(req.GetStates(), test.GetState()) {
			answer.Tests = append(answer.Tests, test)
		}
	}
	if len(answer.GetTests()) > int(req.GetPageSize()) {
		answer.Tests, answer.NextPageToken = answer.GetTests()[:req.GetPageSize()], "more?"
	}
	return answer, f.err
}

func (f *fakeTests) ListFindings(context.Context, *schedulerv1.ListFindingsRequest) (*schedulerv1.ListFindingsResponse, error) {
	return &schedulerv1.ListFindingsResponse{Findings: f.findings}, f.err
}

// fakeEngine is what the scheduler says of its engine.
type fakeEngine struct {
	schedulerv1.UnimplementedEngineServiceServer
	mu     sync.Mutex
	asked  int
	answer *schedulerv1.GetEngineResponse // nil: the scheduler is away
}

func (e *fakeEngine) GetEngine(context.Context, *schedulerv1.GetEngineRequest) (*schedulerv1.GetEngineResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.answer == nil {
		return nil, fault.New(fault.Unavailable, "the scheduler is away")
	}
	return e.answer, nil
}

func (r *rooms) receive(room string, e *eventv1.Event) (*eventv1.Decision, error) {
	r.mu.Lock()
	r.got[room] = append(r.got[room], e)
	answer := r.answer[room]
	r.mu.Unlock()
	if answer == nil {
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted by " + room}, nil
	}
	return answer(e)
}

// answers sets what a room says from now on.
func (r *rooms) answers(room string, answer func(*eventv1.Event) (*eventv1.Decision, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[room] = answer
}

func (r *rooms) received(room string) []*eventv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*eventv1.Event(nil), r.got[room]...)
}

type configEvents struct {
	configv1.UnimplementedEventServiceServer
	*rooms
}

func (c configEvents) ReceiveEvent(_ context.Context, req *configv1.ReceiveEventRequest) (*configv1.ReceiveEventResponse, error) {
	d, err := c.receive("config", req.GetEvent())
	return &configv1.ReceiveEventResponse{Decision: d}, err
}

type schedulerEvents struct {
	schedulerv1.UnimplementedEventServiceServer
	*rooms
}

func (s schedulerEvents) ReceiveEvent(_ context.Context, req *schedulerv1.ReceiveEventRequest) (*schedulerv1.ReceiveEventResponse, error) {
	d, err := s.receive("scheduler", req.GetEvent())
	return &schedulerv1.ReceiveEventResponse{Decision: d}, err
}

type reporterEvents struct {
	reporterv1.UnimplementedEventServiceServer
	*rooms
}

func (r reporterEvents) ReceiveEvent(_ context.Context, req *reporterv1.ReceiveEventRequest) (*reporterv1.ReceiveEventResponse, error) {
	d, err := r.receive("reporter", req.GetEvent())
	return &reporterv1.ReceiveEventResponse{Decision: d}, err
}

// builds plays the scheduler's BuildService.
type builds struct {
	schedulerv1.UnimplementedBuildServiceServer
	one    sync.Mutex // for build, while something steers it
	build  *schedulerv1.Build
	listed []*schedulerv1.Build // the newest first
	days   []*schedulerv1.BuildDay
	log    string
	err    error
	person string        // for whom a build was steered last
	origin rpc.Origin    // and from where
	left   chan struct{} // if there: WatchLog lasts until its call ends, and then says so
}

func (b *builds) GetBuild(_ context.Context, req *schedulerv1.GetBuildRequest) (*schedulerv1.GetBuildResponse, error) {
	if b.err != nil {
		return nil, b.err
	}
	b.one.Lock()
	defer b.one.Unlock()
	if req.GetBuildId() != b.build.GetId() {
		return nil, fault.Newf(fault.NotFound, "no build %s", req.GetBuildId())
	}
	return &schedulerv1.GetBuildResponse{Build: b.build}, nil
}

// ListBuilds filters as the scheduler does. A page token is where the page begins.
func (b *builds) ListBuilds(_ context.Context, req *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsResponse, error) {
	if req.GetPullRequest() != 0 && req.GetRepository() == "" {
		return nil, fault.New(fault.Invalid, "pull_request needs the repository, as owner/name")
	}
	fits := slices.DeleteFunc(slices.Clone(b.listed), func(one *schedulerv1.Build) bool {
		return (req.GetRepository() != "" && req.GetRepository() != one.GetRepository().GetOwner()+"/"+one.GetRepository().GetName()) ||
			(req.GetPullRequest() != 0 && req.GetPullRequest() != one.GetPullRequest()) ||
			(req.GetSha() != "" && req.GetSha() != one.GetSha()) || (req.GetBranch() != "" && req.GetBranch() != one.GetBranch()) ||
			(req.GetActor() != "" && req.GetActor() != one.GetActor()) || (req.GetEnvironment() != "" && req.GetEnvironment() != one.GetEnvironment()) ||
			(req.GetJob() != one.GetJob()) || (len(req.GetActions()) > 0 && !slices.Contains(req.GetActions(), one.GetAction())) ||
			(len(req.GetStates()) > 0 && !slices.Contains(req.GetStates(), one.GetState()))
	})
	from, _ := strconv.Atoi(req.GetPageToken())
	const size = 50
	answer := &schedulerv1.ListBuildsResponse{Builds: fits[from:min(from+size, len(fits))]}
	if from+size < len(fits) {
		answer.NextPageToken = strconv.Itoa(from + size)
	}
	return answer, nil
}

// What steers a build changes the one there is.
func (b *builds) steer(id string, from, to schedulerv1.Build_State) (*schedulerv1.Build, error) {
	b.one.Lock()
	defer b.one.Unlock()
	if id != b.build.GetId() || b.build.GetState() != from {
		return nil, fault.Newf(fault.Conflict, "build %s is not %v", id, from)
	}
	changed := proto.CloneOf(b.build)
	changed.State = to
	if to == schedulerv1.Build_STATE_CANCELLED {
		changed.EndTime = at(90)
	}
	if to == schedulerv1.Build_STATE_QUEUED && from == schedulerv1.Build_STATE_CANCELLED {
		changed.Id, changed.RetryOf, changed.EndTime, changed.Title = "b2", id, nil, "Mend the door again"
	}
	b.build = changed
	return changed, nil
}

func (b *builds) CancelBuild(ctx context.Context, req *schedulerv1.CancelBuildRequest) (*schedulerv1.CancelBuildResponse, error) {
	b.person = rpc.Caller(ctx).Person
	b.origin = rpc.OriginOf(ctx)
	build, err := b.steer(req.GetBuildId(), schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_CANCELLED)
	return &schedulerv1.CancelBuildResponse{Build: build}, err
}

func (b *builds) ExpediteBuild(_ context.Context, req *schedulerv1.ExpediteBuildRequest) (*schedulerv1.ExpediteBuildResponse, error) {
	build, err := b.steer(req.GetBuildId(), schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_QUEUED)
	if err == nil {
		build.ExpeditedBy = "an administrator"
	}
	return &schedulerv1.ExpediteBuildResponse{Build: build}, err
}

func (b *builds) ApproveBuild(_ context.Context, req *schedulerv1.ApproveBuildRequest) (*schedulerv1.ApproveBuildResponse, error) {
	build, err := b.steer(req.GetBuildId(), schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_STATE_QUEUED)
	return &schedulerv1.ApproveBuildResponse{Build: build}, err
}

func (b *builds) RetryBuild(_ context.Context, req *schedulerv1.RetryBuildRequest) (*schedulerv1.RetryBuildResponse, error) {
	build, err := b.steer(req.GetBuildId(), schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_STATE_QUEUED)
	return &schedulerv1.RetryBuildResponse{Build: build}, err
}

func (b *builds) WatchBuild(_ *schedulerv1.WatchBuildRequest, out grpc.ServerStreamingServer[schedulerv1.WatchBuildResponse]) error {
	<-out.Context().Done()
	return nil
}

func (b *builds) WatchLog(req *schedulerv1.WatchLogRequest, out grpc.ServerStreamingServer[schedulerv1.WatchLogResponse]) error {
	from := req.GetOffset()
	if req.GetTailBytes() > 0 {
		from = max(0, int64(len(b.log))-req.GetTailBytes())
	}
	if err := out.Send(&schedulerv1.WatchLogResponse{Data: []byte(b.log)[from:], Offset: from}); err != nil {
		return err
	}
	if b.left != nil {
		<-out.Context().Done()
		close(b.left)
	}
	return nil
}
