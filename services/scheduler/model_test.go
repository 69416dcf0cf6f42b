package scheduler

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

const (
	modelRuns  = 2000 // on each database; fewer where modelTime is over before
	modelSteps = 80   // of a run, at most
	modelTime  = 15 * time.Second
)

// TestPromisesHoldWhateverHappens plays random stories: events in any order and
// more than once, crashes, cancellations, approvals, reruns, freezes, roll backs,
// an engine that fails or forgets, a reporter that is away. After each step the store must keep the promises of the
// package, and in the end every build must end. TEST_SEED plays one story again;
// TEST_RUNS plays that many, however long they take.
func TestPromisesHoldWhateverHappens(t *testing.T) {
	t.Parallel()
	first, runs, limit := rand.Uint64N(1<<32), modelRuns, modelTime
	if seed := os.Getenv("TEST_SEED"); seed != "" {
		first, runs = must(t, seed), 1
	}
	if asked := os.Getenv("TEST_RUNS"); asked != "" {
		runs, limit = int(must(t, asked)), 24*time.Hour
	}
	for name, open := range modelDatabases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := open(t)
			played, began := 0, time.Now()
			m := newModel(t, open)
			for ; played < runs && (time.Since(began) < limit || played < 50); played++ {
				m.play(first + uint64(played))
			}
			if m.db != nil {
				m.db.Close()
			}
			t.Logf("%d runs from seed %d on, %d steps, %d builds, in %v", played, first, m.steps, m.built, time.Since(began).Round(time.Millisecond))
		})
	}
}

func must(t *testing.T, number string) uint64 {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// modelDatabases are opened for speed: what a crash of the machine would do to
// them is not asked here.
func modelDatabases() map[string]func(t *testing.T) func() *sqldb.DB {
	opener := func(t *testing.T, cfg sqldb.Config) func() *sqldb.DB {
		cfg.Room, cfg.Migrations = "scheduler", Migrations()
		return func() *sqldb.DB {
			db, err := sqldb.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			return db
		}
	}
	return map[string]func(t *testing.T) func() *sqldb.DB{
		"sqlite": func(t *testing.T) func() *sqldb.DB {
			return opener(t, sqldb.Config{Dir: kittest.SQLiteDir(t, "scheduler", Migrations())})
		},
		"postgres": func(t *testing.T) func() *sqldb.DB {
			kittest.Require(t, "postgres")
			return opener(t, sqldb.Config{URL: kittest.Postgres(t, "scheduler", Migrations()) + "&synchronous_commit=off"})
		},
	}
}

// model is a world around a scheduler whose loops are not running: each step of
// theirs is one of the model's.
type model struct {
	// nil: of these the model answers what the scheduler calls.
	configv1.BuildConfigServiceClient
	configv1.CommitServiceClient
	configv1.CollaboratorServiceClient
	reporterv1.ReportServiceClient

	t       *testing.T
	open    func() *sqldb.DB
	blobs   *blobs.Store
	db      *sqldb.DB
	clock   *kittest.Clock
	service *Service
	engine  *modelEngine
	steps   int
	built   int

	// Of one story:
	random    *rand.Rand
	log       []string
	pending   []*eventv1.Event // not delivered yet
	delivered []*eventv1.Event
	decisions map[string]*eventv1.Decision
	// repositories there are; fewer of them meet more often.
	repositories int64
	deploys      bool // nothing else happens, all to one environment
	delay        int  // how many events one may come late
	merges       int  // on the one line of history of all repositories
	pulls        int
	heads        map[int]int                          // of pull requests, by number
	groups       int                                  // of the merge queue
	told         map[string]*reporterv1.ReportRequest // the newest, by target
	away         bool                                 // the reporter is
	asked        map[string]bool                      // contents that somebody wanted again
	pressed      []*eventv1.Event                     // those of delivered that are presses
	presses      map[string]string                    // buttons that had something built, and by which delivery
	claimed      []attempt.Start                      // by loops that have not come further
	stopping     []store.Stop
	unsure       bool // GitHub does not compare
	ended        map[string]schedulerv1.Build_State
	frontier     map[string]int // the newest merge deployed, by repository and environment
}

func newModel(t *testing.T, open func() *sqldb.DB) *model {
	return &model{t: t, open: open, blobs: blobsIn(t, t.TempDir()), clock: kittest.NewClock(noon), engine: &modelEngine{}}
}

// GetBuildConfig and CompareCommits are config's.
func (m *model) GetBuildConfig(context.Context, *configv1.GetBuildConfigRequest, ...grpc.CallOption) (*configv1.GetBuildConfigResponse, error) {
	job := &configv1.Job{Commands: []*configv1.Command{{Name: "one", Run: "true"}, {Name: "two", Run: "true"}}}
	return valid(&configv1.BuildConfig{Image: "busybox", Execute: job, DeployStaging: job, DeployProduction: job}), nil
}

func (m *model) CompareCommits(_ context.Context, req *configv1.CompareCommitsRequest, _ ...grpc.CallOption) (*configv1.CompareCommitsResponse, error) {
	if m.unsure {
		return nil, fault.New(fault.Unavailable, "GitHub does not answer")
	}
	relation := configv1.CompareCommitsResponse_RELATION_AHEAD
	if mergeOf(req.GetHead()) < mergeOf(req.GetBase()) {
		relation = configv1.CompareCommitsResponse_RELATION_BEHIND
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, nil
}

// GetPermission lets all but eve write.
func (m *model) GetPermission(_ context.Context, req *configv1.GetPermissionRequest, _ ...grpc.CallOption) (*configv1.GetPermissionResponse, error) {
	permission := configv1.GetPermissionResponse_PERMISSION_WRITE
	if req.GetLogin() == "eve" {
		permission = configv1.GetPermissionResponse_PERMISSION_READ
	}
	return &configv1.GetPermissionResponse{Permission: permission}, nil
}

// Report is the reporter's: of a target the highest version counts.
func (m *model) Report(_ context.Context, req *reporterv1.ReportRequest, _ ...grpc.CallOption) (*reporterv1.ReportResponse, error) {
	if m.away {
		return nil, fault.New(fault.Unavailable, "the reporter is down")
	}
	b := req.GetBuild()
	if at := targetOf(b); req.GetVersion() > m.told[at].GetVersion() {
		m.told[at] = req
	} else if req.GetVersion() == m.told[at].GetVersion() && m.told[at].GetBuild().GetId() != b.GetId() {
		m.t.Errorf("version %d of %s is of build %s and of %s", req.GetVersion(), at, m.told[at].GetBuild().GetId(), b.GetId())
	}
	return &reporterv1.ReportResponse{}, nil
}

func (m *model) Promote(context.Context, *reporterv1.PromoteRequest, ...grpc.CallOption) (*reporterv1.PromoteResponse, error) {
	return &reporterv1.PromoteResponse{}, nil
}

func targetOf(b *schedulerv1.Build) string {
	return fmt.Sprint(b.GetRepository().GetId(), b.GetSha(), b.GetContext())
}

// mergeOf is the place of a merge in the history; 0 for other commits.
func mergeOf(sha string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(sha, "merge"))
	return n
}

// restart is a crash and a new process: what loops had in hand is forgotten.
func (m *model) restart(reopen bool) {
	if reopen && m.db != nil {
		m.db.Close()
		m.db = nil
	}
	if m.db == nil {
		m.db = m.open()
	}
	service, err := New(Deps{
		DB: m.db, Blobs: m.blobs, Engine: m.engine, Capacity: 2, Now: m.clock.Now,
		Policy: trigger.Policy{IntegrationBranches: []string{"main"}, ProductionBranches: []string{"production"}, Forks: trigger.ForkApprove}, Log: slog.New(slog.DiscardHandler),
		SecretsKeys: [][]byte{make([]byte, 32)},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	service.commits, service.environments.Commits, service.outbox.Reporter = m, m, m
	service.plan.Configs, service.plan.Collaborators = m, m
	m.service, m.claimed, m.stopping = service, nil, nil
}

// play plays one story.
func (m *model) play(seed uint64) {
	m.random = rand.New(rand.NewPCG(seed, seed))
	m.log, m.pending, m.delivered, m.decisions = nil, nil, nil, map[string]*eventv1.Decision{}
	m.repositories, m.merges, m.pulls, m.heads = 1+m.random.Int64N(2), 0, 0, map[int]int{}
	m.groups, m.told, m.away, m.asked = 0, map[string]*reporterv1.ReportRequest{}, false, map[string]bool{}
	m.pressed, m.presses = nil, map[string]string{}
	m.delay = []int{1, 3, 100}[m.random.IntN(3)]
	if m.deploys = m.random.IntN(2) == 0; m.deploys {
		m.repositories = 1
	}
	m.unsure, m.ended, m.frontier = m.random.IntN(4) == 0, map[string]schedulerv1.Build_State{}, map[string]int{}
	m.engine.reset()
	m.restart(false)
	m.clear()
	defer func() {
		if m.t.Failed() {
			m.t.Logf("TEST_SEED=%d:\n%s", seed, strings.Join(m.log, "\n"))
			m.t.FailNow()
		}
	}()
	// Each story has its own mixture: some things happen often, some never.
	actions, total := modelActions(), 0
	for n := range actions {
		if actions[n].weight < 10 {
			actions[n].weight *= []int{0, 1, 1, 4}[m.random.IntN(4)]
		}
		total += actions[n].weight
	}
	for range 5 + m.random.IntN(modelSteps) {
		pick := m.random.IntN(total)
		for _, a := range actions {
			if pick -= a.weight; pick < 0 {
				m.log = append(m.log, a.name)
				a.do(m)
				break
			}
		}
		m.check()
		if m.t.Failed() {
			return
		}
	}
	m.drain()
}

func (m *model) notef(format string, args ...any) {
	m.log = append(m.log, "  "+fmt.Sprintf(format, args...))
}

func (m *model) clear() {
	err := m.service.store.Write(m.t.Context(), func(ctx context.Context, t *store.Tx) error {
		for _, table := range []string{"decisions", "pull_requests", "builds", "attempts", "tokens", "steps", "log_chunks", "environments", "targets", "promotions", "answers", "fork_heads", "merge_groups", "check_suites"} {
			if err := t.Exec(ctx, "DELETE FROM "+table); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

type modelAction struct {
	name   string
	weight int
	do     func(m *model)
}

// modelActions are all that may happen, and how often.
func modelActions() []modelAction {
	return []modelAction{
		{"somebody works", 18, (*model).work},
		{"an event is delivered", 16, (*model).deliver},
		{"an event is delivered again", 4, (*model).redeliver},
		{"starts are claimed", 12, (*model).claim},
		{"a start is carried out", 8, (*model).begin},
		{"a runner goes on", 16, (*model).run},
		{"a second runner comes", 1, (*model).impostor},
		{"stops are claimed", 6, (*model).claimStops},
		{"a stop is carried out", 4, (*model).stop},
		{"a sweep", 5, (*model).sweep},
		{"a container vanishes", 2, (*model).vanish},
		{"the engine changes", 3, func(m *model) { m.engine.trouble = m.random.IntN(5) }},
		{"GitHub changes", 2, func(m *model) { m.unsure = m.random.IntN(2) == 0 }},
		{"a build is cancelled", 2, (*model).cancel},
		{"a build is approved", 3, (*model).approve},
		{"a build is wanted again", 2, (*model).retry},
		{"a button is pressed", 4, (*model).press},
		{"news are told", 8, (*model).tellNews},
		{"the reporter changes", 2, func(m *model) { m.away = !m.away }},
		{"an environment is frozen", 2, (*model).freeze},
		{"an environment is unfrozen", 2, (*model).unfreeze},
		{"a roll back", 2, (*model).rollBack},
		{"time passes", 8, (*model).wait},
		{"a crash", 2, func(m *model) { m.restart(m.random.IntN(20) == 0) }},
	}
}

// work makes events, in the order in which they happen.
func (m *model) work() {
	at := noon.Add(time.Duration(m.pulls+m.merges+len(m.pending)+len(m.delivered)) * time.Second)
	repositoryID := 1 + m.random.Int64N(m.repositories)
	var e *eventv1.Event
	switch kind := m.random.IntN(10); {
	case kind < 5 || m.deploys: // merged
		m.merges++
		base := "main"
		if kind == 0 && !m.deploys {
			base = "production"
		}
		e = mergedInto(int32(1000+m.merges), base, fmt.Sprintf("merge%d", m.merges))
	case kind == 9: // the merge queue has a group, or gives one up
		action := "checks_requested"
		if m.groups > 0 && m.random.IntN(2) == 0 {
			action = "destroyed"
		} else {
			m.groups++
		}
		group := 1 + m.random.IntN(m.groups)
		e = happened("merge_group", action, &eventv1.MergeGroupEvent{
			HeadSha: fmt.Sprintf("group%d", group), HeadRef: fmt.Sprintf("%smain/%d", trigger.QueueRef, group), BaseRef: "main",
		})
		e.DeliveryId = fmt.Sprintf("%s-%d-%d", action, group, len(m.pending)+len(m.delivered))
		e.Repository.Id, e.Repository.Name = repositoryID, fmt.Sprintf("shop-%d", repositoryID)
		m.pending = append(m.pending, e)
		return
	case kind == 5 || m.pulls == 0:
		m.pulls++
		e = opened(int32(m.pulls), fmt.Sprintf("head%d-0", m.pulls))
		repositoryID = int64(m.pulls)%m.repositories + 1
	default:
		number := 1 + m.random.IntN(m.pulls)
		repositoryID = int64(number)%m.repositories + 1
		before := fmt.Sprintf("head%d-%d", number, m.heads[number])
		m.heads[number]++
		e = synchronize(before, fmt.Sprintf("head%d-%d", number, m.heads[number]), at)
		switch kind {
		case 7:
			e.Action, e.DeliveryId = "closed", "closed-"+before
			pull(e).Open = false
		case 8: // what it goes into
			m.heads[number]--
			base := []string{"main", "production", "feature"}[m.random.IntN(3)]
			e = rebased("main", base, at)
			e.DeliveryId = fmt.Sprintf("edited-%s-%d", before, len(m.pending)+len(m.delivered))
			pull(e).Head.Sha = before
		}
		pull(e).Number = int32(number)
	}
	pull(e).UpdateTime = timestamppb.New(at)
	e = of(repositoryID, e)
	if pull(e).GetNumber()%3 == 0 && !pull(e).GetMerged() { // a stranger's fork
		e = fromFork("eve", e)
	}
	m.pending = append(m.pending, e)
}

func (m *model) deliver() {
	if len(m.pending) == 0 {
		return
	}
	n := m.random.IntN(min(m.delay, len(m.pending)))
	e := m.pending[n]
	m.pending = slices.Delete(m.pending, n, n+1)
	m.delivered = append(m.delivered, e)
	m.receive(e)
}

func (m *model) redeliver() {
	if len(m.delivered) == 0 {
		return
	}
	e := proto.CloneOf(m.delivered[m.random.IntN(len(m.delivered))])
	if m.random.IntN(2) == 0 {
		e.DeliveryId += "-again"
	}
	m.receive(e)
}

func (m *model) receive(e *eventv1.Event) {
	answer, err := m.service.ReceiveEvent(m.t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
	if err != nil {
		m.t.Errorf("receive %s: %v", e.GetDeliveryId(), err)
		return
	}
	m.notef("%s: %s %v", e.GetDeliveryId(), answer.GetDecision().GetText(), answer.GetDecision().GetBuildIds())
	if before := m.decisions[e.GetDeliveryId()]; before != nil && answer.GetDecision().GetReason() != before.GetReason() {
		m.t.Errorf("%s was decided %v, now %v", e.GetDeliveryId(), before, answer.GetDecision())
	}
	m.decisions[e.GetDeliveryId()] = answer.GetDecision()
	if e.GetCheckRun() != nil || e.GetCheckSuite() != nil {
		m.checkPress(e, answer.GetDecision())
	}
}

// press presses a button at some build's check run, or at all checks of its
// commit; or somebody sends an earlier press again, as another delivery.
func (m *model) press() {
	builds := m.builds()
	if len(builds) == 0 {
		return
	}
	if len(m.pressed) > 0 && m.random.IntN(2) == 0 {
		e := proto.CloneOf(m.pressed[m.random.IntN(len(m.pressed))])
		e.DeliveryId += fmt.Sprintf("-replayed-%d", m.steps)
		m.receive(e)
		return
	}
	b := builds[m.random.IntN(len(builds))]
	e := pressedAt(b.GetSha(), b.GetId(), []string{"", "rerun", "cancel"}[m.random.IntN(3)])
	if m.random.IntN(2) == 0 {
		e = happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{
			CheckSuiteId: int64(crc32.ChecksumIEEE([]byte(b.GetSha()))), HeadSha: b.GetSha(),
			UpdateTime: timestamppb.New(noon.Add(time.Duration(len(m.delivered)) * time.Second)),
		})
	}
	e.DeliveryId, e.Repository = fmt.Sprintf("press-%d-%s", len(m.delivered), b.GetId()), b.GetRepository()
	m.delivered, m.pressed = append(m.delivered, e), append(m.pressed, e)
	m.receive(e)
}

func (m *model) claim() {
	claimed, err := m.service.attempts.ClaimStarts(m.t.Context(), 1+m.random.IntN(2))
	m.failed("claim starts", err)
	for _, c := range claimed {
		m.notef("%s", store.AttemptName(c.Build.GetId(), c.Build.GetAttempt()))
	}
	m.claimed = append(m.claimed, claimed...)
	if m.random.IntN(2) == 0 {
		m.begin()
	}
}

func (m *model) begin() {
	if len(m.claimed) == 0 {
		return
	}
	n := m.random.IntN(len(m.claimed))
	c := m.claimed[n]
	m.claimed = slices.Delete(m.claimed, n, n+1)
	m.notef("%s", store.AttemptName(c.Build.GetId(), c.Build.GetAttempt()))
	m.service.attempts.Start(m.t.Context(), c)
}

func (m *model) claimStops() {
	claimed, err := m.service.store.ClaimStops(m.t.Context(), 2)
	m.failed("claim stops", err)
	m.stopping = append(m.stopping, claimed...)
	if m.random.IntN(2) == 0 {
		m.stop()
	}
}

func (m *model) stop() {
	if len(m.stopping) == 0 {
		return
	}
	c := m.stopping[0]
	m.stopping = m.stopping[1:]
	m.notef("%s", store.AttemptName(c.BuildID, c.Attempt))
	m.service.attempts.Stop(m.t.Context(), c)
}

func (m *model) sweep() {
	if err := m.service.attempts.Sweep(m.t.Context()); err != nil && m.engine.trouble == engineWell {
		m.t.Errorf("sweep: %v", err)
	}
}

func (m *model) vanish() {
	if names := m.engine.names(); len(names) > 0 {
		name := names[m.random.IntN(len(names))]
		m.notef("%s", name)
		delete(m.engine.containers, name)
	}
}

func (m *model) cancel() {
	if builds := m.builds(); len(builds) > 0 {
		id := builds[m.random.IntN(len(builds))].GetId()
		m.notef("%s", id)
		_, err := m.service.CancelBuild(m.t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id})
		m.failed("cancel", err, fault.Conflict)
	}
}

func (m *model) approve() {
	for _, b := range m.builds() {
		if b.GetState() == schedulerv1.Build_STATE_BLOCKED {
			m.notef("%s", b.GetId())
			_, err := m.service.ApproveBuild(m.t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: b.GetId()})
			m.failed("approve", err)
			return
		}
	}
}

func (m *model) retry() {
	if builds := m.builds(); len(builds) > 0 {
		b := builds[m.random.IntN(len(builds))]
		m.notef("%s", b.GetId())
		answer, err := m.service.RetryBuild(m.t.Context(), &schedulerv1.RetryBuildRequest{BuildId: b.GetId()})
		m.failed("retry", err, fault.Conflict, fault.Exists)
		if err == nil {
			m.asked[contentOf(b)] = true
			m.notef("as %s", answer.GetBuild().GetId())
		}
	}
}

// tellNews has some news told, or a process that was about to tell them end.
func (m *model) tellNews() {
	claimed, err := m.service.store.ClaimTargets(m.t.Context(), 1+m.random.IntN(3))
	m.failed("claim targets", err)
	for _, c := range claimed {
		if m.random.IntN(6) > 0 {
			m.service.outbox.Report(m.t.Context(), c)
		}
	}
}

func (m *model) place() (repository, environment string) {
	environment = "staging"
	if !m.deploys && m.random.IntN(3) == 0 {
		environment = "production"
	}
	return fmt.Sprintf("Acme/shop-%d", 1+m.random.Int64N(m.repositories)), environment
}

func (m *model) freeze() {
	repository, environment := m.place()
	_, err := m.service.FreezeEnvironment(m.t.Context(), &schedulerv1.FreezeEnvironmentRequest{
		Repository: repository, Environment: environment, Message: "winter",
	})
	m.failed("freeze", err, fault.NotFound)
}

func (m *model) unfreeze() {
	repository, environment := m.place()
	_, err := m.service.UnfreezeEnvironment(m.t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: repository, Environment: environment})
	m.failed("unfreeze", err, fault.NotFound)
}

func (m *model) rollBack() {
	repository, environment := m.place()
	builds := m.builds()
	m.random.Shuffle(len(builds), func(i, j int) { builds[i], builds[j] = builds[j], builds[i] })
	for _, b := range builds {
		if b.GetState() == schedulerv1.Build_STATE_PASSED && b.GetEnvironment() == environment &&
			strings.EqualFold(wording.FullName(b.GetRepository()), repository) {
			m.notef("%s of %s to %s", environment, repository, b.GetId())
			_, err := m.service.RollBackEnvironment(m.t.Context(), &schedulerv1.RollBackEnvironmentRequest{
				Repository: repository, Environment: environment, BuildId: b.GetId(),
			})
			m.failed("roll back", err)
			return
		}
	}
}

func (m *model) wait() {
	m.clock.Advance([]time.Duration{time.Second, 11 * time.Second, time.Minute, 6 * time.Minute, 2 * time.Hour}[m.random.IntN(5)])
}

// failed fails the test at an error that is none of the kinds.
func (m *model) failed(what string, err error, kinds ...fault.Kind) {
	if err != nil && !slices.Contains(kinds, fault.KindOf(err)) {
		m.t.Errorf("%s: %v", what, err)
	}
}

// drain lets all go well: every build must end, and nothing be left.
func (m *model) drain() {
	m.log = append(m.log, "all goes well from here on")
	m.engine.trouble, m.unsure, m.away = engineWell, false, false
	for _, repository := range []string{"Acme/shop-1", "Acme/shop-2"} {
		for _, environment := range []string{"staging", "production"} {
			_, err := m.service.UnfreezeEnvironment(m.t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: repository, Environment: environment})
			m.failed("unfreeze", err, fault.NotFound)
		}
	}
	var left error
	for range 60 {
		for len(m.pending) > 0 {
			m.deliver()
		}
		for range m.builds() {
			m.approve()
			m.tellNews()
		}
		m.claim()
		for len(m.claimed) > 0 {
			m.begin()
		}
		for range len(m.engine.containers) {
			m.run()
		}
		m.claimStops()
		for len(m.stopping) > 0 {
			m.stop()
		}
		m.clock.Advance(20 * time.Second)
		m.sweep()
		m.check()
		if left = m.unfinished(); left == nil || m.t.Failed() {
			break
		}
	}
	m.failed("in the end", left)
}

func (m *model) unfinished() error {
	for _, b := range m.builds() {
		if !store.Ended(b.GetState()) {
			return fmt.Errorf("build %s is %v: %s", b.GetId(), b.GetState(), b.GetMessage())
		}
	}
	if names := m.engine.names(); len(names) > 0 {
		return fmt.Errorf("containers are left: %v", names)
	}
	newest := map[string]*store.Build{}
	for _, b := range m.builds() {
		newest[targetOf(b.Build)] = b
	}
	for at, b := range newest {
		if told := m.told[at].GetBuild(); told.GetId() != b.GetId() || told.GetState() != b.GetState() || told.GetMessage() != b.GetMessage() {
			return fmt.Errorf("%s is told as %v of build %s, it is %v of %s", at, told.GetState(), told.GetId(), b.GetState(), b.GetId())
		}
	}
	for _, e := range m.environments() {
		if e.Holder != "" {
			return fmt.Errorf("%s is held by build %s, which has ended", e.Name, e.Holder)
		}
	}
	return nil
}
