package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

const (
	weekSHA   = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd"
	weekPull  = 4711
	weekSuite = 4712
)

// weekLife is that of one build, from its event up to where its log is in a blob.
type weekLife struct {
	*kittest.Recording
	build string
	group bool // of a merge group, not of a pull request
}

// parts is what differs between builds, which are of two hundred repositories.
func (l weekLife) parts() []kittest.Part {
	pulls := []string{"pull_requests.number", "fork_heads.pull_request"}
	if !l.group {
		pulls = append(pulls, "builds.pull_request")
	}
	return []kittest.Part{
		{Name: "build", Text: l.build, SQL: "substr(md5('build' || n), 1, " + strconv.Itoa(len(l.build)) + ")"},
		{Name: "sha", Text: weekSHA, SQL: "substr(md5('a' || n) || md5('b' || n), 1, 40)"},
		{Name: "repository", Text: "acme/shop", SQL: "'acme/' || lpad((n % 200)::text, 4, 's')"},
		{Name: "repository_id", Columns: []string{
			"builds.repository_id", "pull_requests.repository_id", "targets.repository_id", "merge_groups.repository_id",
			"fork_heads.repository_id", "check_suites.repository_id",
		}, SQL: "1000 + n % 200"},
		{Name: "pull", Columns: pulls, SQL: "n"},
		{Name: "suite", Columns: []string{"check_suites.suite_id"}, SQL: "n"},
		{Name: "comment", Text: "7/4713", SQL: "'7/' || n"},
		{Name: "number", Columns: []string{"builds.number"}, SQL: "nextval('scheduler.builds_number_seq')"},
		{Name: "token", Columns: []string{"tokens.hash"}, SQL: "sha256(convert_to('token' || n, 'UTF8'))"},
	}
}

// recordLife records what the scheduler does of an event: the build passes, and then other
// events tell of its end.
func recordLife(r *rig, event *eventv1.Event, after ...*eventv1.Event) weekLife {
	r.t.Helper()
	life := weekLife{group: event.GetMergeGroup() != nil}
	life.Recording = kittest.Record(r.t, r.deps.DB.Read(), "scheduler", func() {
		life.build = r.built(event)
		r.pass(life.build)
		for _, e := range after {
			r.send(e)
		}
		r.settled()
		r.moved()
		r.settled() // the clock was moved, and with it what was just being told
	}).Without("changes", "sweeps", "schedule_files") // news for other replicas, whose turn it is, and a row a repository
	return life
}

func weekPullRequest() (opened1, closed *eventv1.Event) {
	opened1, closed = opened(weekPull, weekSHA), opened(weekPull, weekSHA)
	opened1.GetPullRequest().GetPullRequest().Head.Repository = &eventv1.Repository{Id: 8, Owner: "mallory", Name: "shop"}
	closed.DeliveryId, closed.Action = "closed-"+weekSHA, "closed"
	closed.GetPullRequest().GetPullRequest().Open = false
	closed.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(noon.Add(time.Hour))
	return opened1, closed
}

// postgresRig is a scheduler on an empty database, at work.
func postgresRig(t *testing.T) (*rig, sqldb.Config) {
	t.Helper()
	kittest.Require(t, "postgres")
	cfg := sqldb.Config{URL: kittest.PostgresURL(t), Room: "scheduler", Migrations: Migrations()}
	r := newRig(t, func() *sqldb.DB {
		db, err := sqldb.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
	r.deps.Policy.Forks = trigger.ForkRun
	r.deps.Runners.Heartbeat = time.Hour
	r.start()
	return r, cfg
}

// What is played back leaves what the scheduler itself leaves, statement by statement.
func TestABuildPlayedBackIsABuild(t *testing.T) {
	r, _ := postgresRig(t)
	db := r.deps.DB.Read()
	event, closed := weekPullRequest()
	first := recordLife(r, event, closed)
	played := kittest.Record(t, db, "scheduler", func() {
		first.Play(t, db, kittest.Copies{First: 1, Count: 1, Shift: time.Hour}, first.parts()...)
	})
	again, closedAgain := weekPullRequest()
	for _, e := range []*eventv1.Event{again, closedAgain} {
		e.DeliveryId = strings.ReplaceAll(e.GetDeliveryId(), weekSHA, strings.ToUpper(weekSHA))
		pull := e.GetPullRequest().GetPullRequest()
		pull.Number, pull.Head.Sha = weekPull+1, strings.ToUpper(weekSHA)
	}
	second := recordLife(r, again, closedAgain)
	// The order of what the loops do differs from run to run, and with it the versions between.
	hidden := []string{
		"builds.number", "builds.id", "builds.build", "builds.config", "builds.sha", "builds.repository", "builds.repository_id", "builds.pull_request",
		"decisions.delivery_id", "decisions.decision", "pull_requests.repository_id", "pull_requests.number", "pull_requests.moves",
		"attempts.build_id", "tokens.build_id", "tokens.hash", "steps.build_id", "steps.step", "log_chunks.build_id", "log_lines.build_id", "log_lines.pieces", "log_chunks.data",
		"targets.build_id", "targets.repository_id", "targets.sha", "archives.build_id", "archives.blob", "fork_heads.repository_id", "fork_heads.pull_request", "fork_heads.sha",
		"builds.traceparent", "targets.traceparent", "builds.end_day", "builds.duration",
	}
	kittest.Want(t, played.Like(hidden...), first.Like(hidden...))
	kittest.Want(t, kittest.Left(played, hidden...), kittest.Left(second.Recording, hidden...))
}

func TestAWeekOfBuildsIsKeptFlat(t *testing.T) { keptFlat(t, 400) }

func TestSoakAWeekOfBuildsIsKeptFlat(t *testing.T) {
	kittest.Require(t, "soak")
	keptFlat(t, kittest.PerDay(t, 50000))
}

// keptFlat lives a week of so many builds a day. Whatever they bring, tables stop
// growing once what is old goes, and nothing that the scheduler does reads more rows
// than on the first day. Logs are kept for two days, builds for four.
func keptFlat(t *testing.T, perDay int64) {
	t.Helper()
	r, cfg := postgresRig(t)
	r.deps.Retention = Retention{Logs: 2 * 24 * time.Hour, Builds: 4 * 24 * time.Hour}
	event, closed := weekPullRequest()
	pulls := recordLife(r, event, closed)
	r.pass(r.built(group("checks_requested", "main", "first"))) // the first of a repository leaves a row that stays
	groups := recordLife(r, group("checks_requested", "main", weekSHA), group("destroyed", "main", weekSHA))
	r.stop()
	s := asleep(r, r.open())
	db := s.deps.DB.Read()
	t.Cleanup(func() { s.deps.DB.Close() })
	week := kittest.Week{DB: db, Room: "scheduler", Begin: noon, PerDay: perDay}
	week.Live(t, func(copies kittest.Copies, now time.Time) {
		r.clock.Advance(now.Sub(r.clock.Now()))
		few, most := copies.Split(copies.Count / 10)
		groups.Play(t, db, few, groups.parts()...)
		pulls.Play(t, db, most, pulls.parts()...)
		if err := errors.Join(s.prune(t.Context()), s.clear(t.Context())); err != nil {
			t.Fatal(err)
		}
	}, func(time.Time) { week.Costs(t, cfg, weekCosts(r)) })
}

// asleep is a scheduler of which nothing runs by itself.
func asleep(r *rig, db *sqldb.DB) *Service {
	r.t.Helper()
	deps := r.deps
	deps.DB, deps.Engine = db, &memoryEngine{containers: map[string]engine.Container{}, specs: map[string]engine.Spec{}}
	s, err := New(deps)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// clear removes the logs that nobody reads any more.
func (s *Service) clear(ctx context.Context) error {
	for {
		found, err := s.logs.Archives.Claim(ctx, 1000)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, one := range found {
			s.logs.Archives.Work(ctx, one)
		}
	}
}

// weekCosts are what a scheduler does all day.
func weekCosts(r *rig) []kittest.Cost {
	do := func(f func(ctx context.Context, s *Service) error) func(*sqldb.DB) {
		return func(db *sqldb.DB) {
			if err := f(r.t.Context(), asleep(r, db)); err != nil {
				r.t.Error(err)
			}
		}
	}
	list := func(req *schedulerv1.ListBuildsRequest) func(*sqldb.DB) {
		return do(func(ctx context.Context, s *Service) error { _, err := s.ListBuilds(ctx, req); return err })
	}
	const page = 1000
	one := 0
	return []kittest.Cost{
		{Name: "start-up", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			_, starts := s.attempts.ClaimStarts(ctx, 1)
			_, stops := s.store.ClaimStops(ctx, 8)
			_, targets := s.store.ClaimTargets(ctx, 8)
			_, promotions := s.store.ClaimPromotions(ctx, 8)
			_, answers := s.store.ClaimAnswers(ctx, 8)
			_, archives := s.logs.Archives.Claim(ctx, 8)
			return errors.Join(s.store.FreeLeases(ctx), s.secrets.Renew(ctx), s.attempts.Sweep(ctx), starts, stops, targets, promotions, answers, archives)
		})},
		{Name: "list", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{})},
		{Name: "list of a repository", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{Repository: "acme/sss5"})},
		{Name: "list of a pull request", Rows: 5, Do: list(&schedulerv1.ListBuildsRequest{Repository: "acme/sss5", PullRequest: 1})},
		{Name: "list of a commit", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{Sha: weekSHA})},
		{Name: "list of what has not ended", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{
			schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_RUNNING,
		}})},
		{Name: "list of what has failed", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{schedulerv1.Build_STATE_FAILED}})},
		{Name: "list of what has passed", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{schedulerv1.Build_STATE_PASSED}})},
		{Name: "list of what failed of a repository", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{
			Repository: "acme/sss5", States: []schedulerv1.Build_State{schedulerv1.Build_STATE_FAILED},
		})},
		{Name: "list of deploys", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{Actions: []schedulerv1.Build_Action{schedulerv1.Build_ACTION_DEPLOY_PRODUCTION}})},
		{Name: "list of tests", Rows: page, Do: list(&schedulerv1.ListBuildsRequest{Actions: []schedulerv1.Build_Action{schedulerv1.Build_ACTION_TEST}})},
		{Name: "metrics", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			_, counts := s.store.CountUnfinished(ctx)
			_, waiting := s.store.CountWaiting(ctx)
			_, _, stops := s.store.CountStops(ctx)
			return errors.Join(counts, waiting, stops)
		})},
		{Name: "one build, from its event to its end", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			one++
			siblings := planningSiblings{config: usual()}
			s.plan.Configs, s.plan.Commits = siblings, siblings
			d, err := s.plan.Decide(ctx, opened(int32(one), fmt.Sprintf("cost-%d-%d", one, r.clock.Now().Unix())))
			if err != nil || len(d.GetBuildIds()) != 1 {
				return fmt.Errorf("%v: %w", d, err)
			}
			claimed, err := s.attempts.ClaimStarts(ctx, 1)
			if err != nil || len(claimed) != 1 {
				return fmt.Errorf("claimed %d: %w", len(claimed), err)
			}
			s.attempts.Start(ctx, claimed[0])
			return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
				b, err := t.Build(ctx, d.GetBuildIds()[0])
				if err != nil {
					return err
				}
				return s.attempts.Finish(ctx, t, b, schedulerv1.Build_STATE_PASSED, schedulerv1.Build_REASON_UNSPECIFIED, "")
			})
		})},
		{Name: "a merge group is given up", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			e := group("destroyed", "main", "none")
			e.Repository.Id, e.DeliveryId = 1005, fmt.Sprint("destroyed-", r.clock.Now().Unix())
			_, err := s.plan.Decide(ctx, e)
			return err
		})},
		{Name: "forget twenty builds", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			old, err := s.store.OldBuilds(ctx, r.clock.Now().Add(-12*time.Hour), 20)
			if err != nil || len(old) != 20 {
				return fmt.Errorf("%d builds are old: %w", len(old), err)
			}
			return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
				for _, id := range old {
					err = errors.Join(err, removeBuild(ctx, t, id))
				}
				return err
			})
		})},
		{Name: "prune with nothing old", Rows: page, Do: do(func(ctx context.Context, s *Service) error { return s.prune(ctx) })},
	}
}
