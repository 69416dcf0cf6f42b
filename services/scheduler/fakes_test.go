package scheduler

import (
	"cmp"
	"context"
	"slices"
	"sync"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/wording"
)

// memoryEngine runs nothing: tests play the runner with the spec it was given.
type memoryEngine struct {
	mu         sync.Mutex
	containers map[string]engine.Container
	specs      map[string]engine.Spec
	starts     []string
	stops      []string
	startErr   error
	says       string // for the log, at each start
	listErr    error
	tail       string
	stopErr    error
	held       chan struct{} // when set, Start waits for it to be closed
}

func (*memoryEngine) Name() string { return "memory" }

func (e *memoryEngine) Start(ctx context.Context, spec engine.Spec) error {
	e.mu.Lock()
	held := e.held
	e.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starts = append(e.starts, spec.Attempt)
	if e.says != "" {
		spec.Say(e.says)
	}
	if e.startErr != nil {
		return e.startErr
	}
	if _, there := e.containers[spec.Attempt]; !there {
		e.containers[spec.Attempt] = engine.Container{Attempt: spec.Attempt, Running: true, ExitCode: -1}
		e.specs[spec.Attempt] = spec
	}
	return nil
}

func (e *memoryEngine) Stop(_ context.Context, attempt string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stops = append(e.stops, attempt)
	if e.stopErr != nil {
		return e.stopErr
	}
	delete(e.containers, attempt)
	return nil
}

func (e *memoryEngine) List(context.Context) ([]engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []engine.Container
	for _, c := range e.containers {
		all = append(all, c)
	}
	return all, e.listErr
}

func (e *memoryEngine) Tail(context.Context, string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tail, e.listErr
}

func (e *memoryEngine) set(change func(*memoryEngine)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e)
}

func (e *memoryEngine) running(attempt string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, there := e.containers[attempt]
	return there
}

// attempts names the containers that are there.
func (e *memoryEngine) attempts() (names []string) {
	all, _ := e.List(context.Background())
	for _, c := range all {
		names = append(names, c.Attempt)
	}
	return names
}

type fakeConfig struct {
	configv1.UnimplementedBuildConfigServiceServer
	configv1.UnimplementedSourceServiceServer
	configv1.UnimplementedCommitServiceServer
	mu        sync.Mutex
	answers   map[string]*configv1.GetBuildConfigResponse // by sha; else usual
	secrets   []string                                    // named by the usual answer
	err       error
	source    []string
	merge     *configv1.MergeResponse
	mergeErr  error
	sources   []*configv1.GetSourceRequest // that were asked for
	prepared  []*configv1.GetSourceRequest
	prepare   func(ctx context.Context) error // nil: it is ready at once
	sourceErr []error                         // one per call, before anything is sent
	breaks    int                             // calls that break off after the first part
	asked     []string
	history   []string            // commits on one line, the oldest first
	branches  map[string][]string // their commits, the newest first
	tags      map[string]string   // their commits
	compare   error
	messages  map[string]string // of commits, by sha
	commitErr error
}

func usual() *configv1.BuildConfig {
	return &configv1.BuildConfig{
		Image: "golang:1.26", Environment: map[string]string{"CGO_ENABLED": "0", "CI": "mine"},
		Execute:       &configv1.Pipeline{Commands: []*configv1.Command{{Name: "vet", Run: "go vet ./..."}, {Name: "unit tests", Run: "go test ./..."}}},
		DeployStaging: &configv1.Pipeline{Url: "https://staging.example", Commands: []*configv1.Command{{Name: "deploy", Run: "./deploy staging"}}},
		DeployProduction: &configv1.Pipeline{
			Commands: []*configv1.Command{{Name: "deploy", Run: "./deploy production"}},
		},
	}
}

func valid(c *configv1.BuildConfig) *configv1.GetBuildConfigResponse {
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: c}}
}

func (c *fakeConfig) set(sha string, answer *configv1.GetBuildConfigResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[sha] = answer
}

func (c *fakeConfig) GetBuildConfig(_ context.Context, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := cmp.Or(req.GetSha(), req.GetBranch())
	c.asked = append(c.asked, at)
	if answer := c.answers[at]; answer != nil {
		return &configv1.GetBuildConfigResponse{
			Outcome: answer.GetOutcome(), NoMatchingPaths: answer.GetNoMatchingPaths() && req.GetChange() != nil,
			JobsWithoutMatchingPaths: answer.GetJobsWithoutMatchingPaths(),
		}, nil
	}
	config := usual()
	config.Secrets = c.secrets
	return valid(config), c.err
}

func (c *fakeConfig) Merge(context.Context, *configv1.MergeRequest) (*configv1.MergeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.merge, c.mergeErr
}

func (c *fakeConfig) PrepareSource(ctx context.Context, req *configv1.PrepareSourceRequest) (*configv1.PrepareSourceResponse, error) {
	c.mu.Lock()
	c.prepared = append(c.prepared, req.GetSource())
	prepare := c.prepare
	c.mu.Unlock()
	if prepare == nil {
		return &configv1.PrepareSourceResponse{}, nil
	}
	return &configv1.PrepareSourceResponse{}, prepare(ctx)
}

func (c *fakeConfig) GetSource(req *configv1.GetSourceRequest, stream configv1.SourceService_GetSourceServer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources = append(c.sources, req)
	if len(c.sourceErr) > 0 {
		err := c.sourceErr[0]
		c.sourceErr = c.sourceErr[1:]
		return err
	}
	for _, part := range c.source {
		if err := stream.Send(&configv1.GetSourceResponse{Data: []byte(part)}); err != nil {
			return err
		}
		if c.breaks > 0 {
			c.breaks--
			return fault.New(fault.Unavailable, "GitHub broke off")
		}
	}
	return nil
}

// CompareCommits has what is not in the history ahead of everything.
func (c *fakeConfig) CompareCommits(_ context.Context, req *configv1.CompareCommitsRequest) (*configv1.CompareCommitsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base, head := slices.Index(c.history, req.GetBase()), slices.Index(c.history, req.GetHead())
	relation := configv1.CompareCommitsResponse_RELATION_AHEAD
	if base >= 0 && head >= 0 && head < base {
		relation = configv1.CompareCommitsResponse_RELATION_BEHIND
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, c.compare
}

func (c *fakeConfig) GetCommit(_ context.Context, req *configv1.GetCommitRequest) (*configv1.GetCommitResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &configv1.GetCommitResponse{Sha: req.GetSha(), Message: cmp.Or(c.messages[req.GetSha()], "Add a till")}, cmp.Or(c.err, c.commitErr)
}

func (c *fakeConfig) FindCommit(_ context.Context, req *configv1.FindCommitRequest) (*configv1.FindCommitResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if req.GetTag() != "" {
		sha := c.tags[req.GetTag()]
		if sha == "" {
			return nil, fault.New(fault.NotFound, "GitHub does not have it")
		}
		return &configv1.FindCommitResponse{Repository: repository(), Sha: sha, Title: "Commit of " + req.GetTag()}, c.commitErr
	}
	found := &configv1.FindCommitResponse{Repository: repository(), Branch: cmp.Or(req.GetBranch(), "main")}
	commits := c.branches[found.GetBranch()]
	if of := req.GetRepository(); wording.FullName(of) != wording.FullName(found.GetRepository()) || len(commits) == 0 {
		return nil, fault.New(fault.NotFound, "GitHub does not have it")
	}
	found.Sha = cmp.Or(req.GetSha(), commits[0])
	if !slices.Contains(commits, found.GetSha()) {
		return nil, fault.New(fault.NotFound, "the branch does not hold it")
	}
	found.Newest, found.Title = found.GetSha() == commits[0], "Commit "+found.GetSha()[:3]
	return found, nil
}

type fakeReporter struct {
	reporterv1.UnimplementedReportServiceServer
	mu         sync.Mutex
	down       bool
	refused    int
	reports    []*reporterv1.ReportRequest
	promotions []*reporterv1.PromoteRequest
	answers    []*reporterv1.AnswerRequest
}

func (f *fakeReporter) set(change func(*fakeReporter)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeReporter) up() error {
	if f.down {
		f.refused++
		return fault.New(fault.Unavailable, "the reporter is down")
	}
	return nil
}

func (f *fakeReporter) Report(_ context.Context, req *reporterv1.ReportRequest) (*reporterv1.ReportResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.up(); err != nil {
		return nil, err
	}
	f.reports = append(f.reports, req)
	return &reporterv1.ReportResponse{}, nil
}

func (f *fakeReporter) Promote(_ context.Context, req *reporterv1.PromoteRequest) (*reporterv1.PromoteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.up(); err != nil {
		return nil, err
	}
	f.promotions = append(f.promotions, req)
	return &reporterv1.PromoteResponse{}, nil
}

func (f *fakeReporter) Answer(_ context.Context, req *reporterv1.AnswerRequest) (*reporterv1.AnswerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.up(); err != nil {
		return nil, err
	}
	f.answers = append(f.answers, req)
	return &reporterv1.AnswerResponse{}, nil
}

// shows is what the reporter holds for a target: the highest version told.
func (f *fakeReporter) shows(sha, name string) (newest *reporterv1.ReportRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, report := range f.reports {
		if report.GetBuild().GetSha() == sha && report.GetBuild().GetContext() == name && report.GetStanding() == 0 && report.GetVersion() >= newest.GetVersion() {
			newest = report
		}
	}
	return newest
}
