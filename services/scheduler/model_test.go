package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
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
	labels       map[int32][]string                // of pull requests, by number
	markedAt     map[int32]time.Time               // when these changed
	said         *configv1.BuildConfig_PullRequest // by each file
	timed        bool                              // files have schedules
	grouped      bool                              // files name concurrency groups
	gated        bool                              // and environments after staging, which somebody lets go
	times        []*store.Schedule                 // by loops that have not come further
	graphs       uint64                            // what the jobs of commits are made of; 0: there are none
	frontier     map[string]int                    // the newest merge deployed, by repository and environment
	deployed     map[string]string                 // the build that did so
}

func newModel(t *testing.T, open func() *sqldb.DB) *model {
	return &model{t: t, open: open, blobs: blobsIn(t, t.TempDir()), clock: kittest.NewClock(noon), engine: &modelEngine{}}
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
	siblings := modelSiblings{model: m}
	service.commits, service.environments.Commits, service.outbox.Reporter = siblings, siblings, siblings
	service.plan.Configs, service.plan.Collaborators, service.plan.Commits, service.plan.Pulls = siblings, siblings, siblings, siblings
	service.schedules.Configs, service.schedules.Commits = siblings, siblings
	m.service, m.claimed, m.stopping, m.times = service, nil, nil, nil
}

// play plays one story.
func (m *model) play(seed uint64) {
	m.random = rand.New(rand.NewPCG(seed, seed))
	m.log, m.pending, m.delivered, m.decisions = nil, nil, nil, map[string]*eventv1.Decision{}
	m.repositories, m.merges, m.pulls, m.heads = 1+m.random.Int64N(2), 0, 0, map[int]int{}
	m.groups, m.told, m.away, m.asked = 0, map[string]*reporterv1.ReportRequest{}, false, map[string]bool{}
	m.pressed, m.presses = nil, map[string]string{}
	m.timed, m.times = m.random.IntN(3) == 0, nil
	m.gated = m.random.IntN(2) == 0
	m.labels, m.markedAt, m.said = map[int32][]string{}, map[int32]time.Time{}, rulesOf(m.random)
	m.delay = []int{1, 3, 100}[m.random.IntN(3)]
	if m.deploys = m.random.IntN(2) == 0; m.deploys {
		m.repositories = 1
	}
	m.unsure, m.ended, m.frontier, m.deployed = m.random.IntN(4) == 0, map[string]schedulerv1.Build_State{}, map[string]int{}, map[string]string{}
	if m.graphs = 0; m.random.IntN(2) == 0 {
		m.graphs = m.random.Uint64()
	}
	m.grouped = m.random.IntN(2) == 0
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
		modelChecker{m}.check()
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
		for _, table := range []string{"decisions", "pull_requests", "builds", "attempts", "tokens", "steps", "log_chunks", "environments", "targets", "promotions", "answers", "fork_heads", "merge_groups", "check_suites", "outputs", "engine_outage", "schedules", "schedule_files", "deploy_files", "previews"} {
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
		{"a container is ended", 2, (*model).end},
		{"a machine falls silent, or is back", 2, (*model).machine},
		{"what was about to be made is there", 3, func(m *model) { m.engine.settleLate(m.random) }},
		{"the engine changes", 3, func(m *model) { m.engine.trouble = m.random.IntN(troubles) }},
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
		{"an environment is released", 3, releaseHeld},
		{"times are looked at", 6, look},
		{"time passes", 8, (*model).wait},
		{"a crash", 2, func(m *model) { m.restart(m.random.IntN(20) == 0) }},
	}
}
