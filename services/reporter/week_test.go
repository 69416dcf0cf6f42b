package reporter

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const weekBuild = "abcdefghijklmnopqrstuvwxyz"

// weekLife is what the reporter did of one build, from the first report up to where
// what GitHub shows was read back.
type weekLife struct {
	*kittest.Recording
	w *world
}

// recordLife records how GitHub is told of a build, in a context of its own.
func recordLife(w *world, db *sqldb.DB, name string) weekLife {
	w.t.Helper()
	s := w.reporter(db)
	recorded := kittest.Record(w.t, db.Read(), "reporter", func() {
		for version, state := range []schedulerv1.Build_State{queued, running, good} {
			one := like(w.build(state), state)
			one.Id, one.Context, one.Environment = weekBuild, name, environment(name)
			w.report(s, int64(version)+1, one)
			w.publishAll(s)
		}
		for passed := verifyFirst; passed <= verifyWithin; passed *= verifyGrowth {
			w.clock.Advance(passed)
			w.must(s.verify(w.t.Context()))
		}
	})
	return weekLife{recorded, w}
}

// parts is what differs between targets, which are of two hundred repositories.
func (l weekLife) parts() []kittest.Part {
	parts := []kittest.Part{
		{Name: "build", Text: weekBuild, SQL: "substr(md5('build' || n), 1, 26)"},
		{Name: "sha", Text: l.w.sha, SQL: "substr(md5('a' || n) || md5('b' || n), 1, 40)"},
		{Name: "repository_id", Columns: []string{"targets.repository_id"}, SQL: "1000 + n % 200"},
		{Name: "name", Columns: []string{"targets.name"}, SQL: "lpad((n % 200)::text, 4, 's')"},
	}
	seen := map[string]bool{}
	for _, c := range l.Changes() {
		id, _ := c.New["id"].(string)
		if c.Table != "targets" || c.Old != nil || seen[id] {
			continue
		}
		seen[id] = true
		parts = append(parts, kittest.Part{Name: fmt.Sprintf("target%d", len(seen)), Text: id, SQL: fmt.Sprintf("substr(md5('target%d ' || n), 1, 26)", len(seen))})
	}
	return parts
}

// What is played back leaves what the reporter itself leaves, statement by statement.
func TestATargetPlayedBackIsATarget(t *testing.T) {
	kittest.Require(t, "postgres")
	w, db := newWorld(t), weekDatabase(t, sqldb.Config{URL: kittest.PostgresURL(t)})
	w.adjust = func(d *Deps) { d.Report = "both" }
	first := recordLife(w, db, "forge/test")
	played := kittest.Record(t, db.Read(), "reporter", func() {
		first.Play(t, db.Read(), kittest.Copies{First: 1, Count: 1, Shift: time.Hour}, first.parts()...)
	})
	second := recordLife(w, weekDatabase(t, sqldb.Config{URL: kittest.PostgresURL(t)}), "forge/push")
	hidden := []string{
		"targets.id", "targets.repository_id", "targets.name", "targets.sha", "targets.build_id", "targets.payload", "targets.context", "targets.github_id",
		"targets.want_url", "targets.told_url", "calls.id", "calls.target_id", "calls.took", "calls.request", "calls.request_id",
	}
	kittest.Want(t, played.Like(hidden...), first.Like(hidden...))
	kittest.Want(t, kittest.Left(played, hidden...), kittest.Left(second.Recording, hidden...))
}

func weekDatabase(t *testing.T, cfg sqldb.Config) *sqldb.DB {
	t.Helper()
	cfg.Room, cfg.Migrations = "reporter", Migrations()
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestAWeekOfReportsIsKeptFlat(t *testing.T) { keptFlat(t, 400) }

func TestSoakAWeekOfReportsIsKeptFlat(t *testing.T) {
	kittest.Require(t, "soak")
	keptFlat(t, kittest.PerDay(t, 50000))
}

// keptFlat lives a week of so many builds a day. Whatever they bring, tables stop
// growing once what is old goes, and nothing that the reporter does reads more rows
// than on the first day. What GitHub was told is kept for four days.
func keptFlat(t *testing.T, perDay int64) {
	t.Helper()
	kittest.Require(t, "postgres")
	cfg := sqldb.Config{URL: kittest.PostgresURL(t), Room: "reporter", Migrations: Migrations()}
	db := weekDatabase(t, cfg)
	life := func(name string) weekLife {
		w := newWorld(t)
		w.adjust = func(d *Deps) { d.Report = "both" }
		return recordLife(w, db, name)
	}
	tests, deploys, w := life("forge/test"), life("forge/deploy-production"), newWorld(t)
	w.adjust = func(d *Deps) { d.Retention = 4 * 24 * time.Hour }
	s, begin := w.reporter(db), w.clock.Now()
	week := kittest.Week{DB: db.Read(), Room: "reporter", Begin: begin, PerDay: perDay}
	week.Live(t, func(copies kittest.Copies, now time.Time) {
		w.clock.Advance(now.Sub(w.clock.Now()))
		few, most := copies.Split(copies.Count / 10)
		deploys.Play(t, db.Read(), few, deploys.parts()...)
		tests.Play(t, db.Read(), most, tests.parts()...)
		w.must(s.prune(t.Context()))
	}, func(now time.Time) { week.Costs(t, cfg, weekCosts(w, now)) })
}

// weekCosts are what a reporter does all day.
func weekCosts(w *world, now time.Time) []kittest.Cost {
	do := func(f func(ctx context.Context, s *Service) error) func(*sqldb.DB) {
		return func(db *sqldb.DB) {
			if err := f(w.t.Context(), w.reporter(db)); err != nil {
				w.t.Error(err)
			}
		}
	}
	list := func(req *reporterv1.ListTargetsRequest) func(*sqldb.DB) {
		return do(func(ctx context.Context, s *Service) error { _, err := s.ListTargets(ctx, req); return err })
	}
	tell := func(name string) func(*sqldb.DB) {
		return do(func(ctx context.Context, s *Service) error {
			one := like(w.build(good), good)
			one.Id, one.Sha, one.Context, one.Environment = "one", fmt.Sprintf("%040d", now.Unix()), name, environment(name)
			one.Repository.Id = 1005
			if _, err := s.Report(ctx, &reporterv1.ReportRequest{Build: one, Version: 1}); err != nil {
				return err
			}
			claimed, err := s.store.claim(ctx, 8, now.Add(time.Minute), now.Add(2*time.Minute), func(target) bool { return true })
			if err != nil || len(claimed) == 0 {
				return fmt.Errorf("claimed %d: %w", len(claimed), err)
			}
			for _, c := range claimed {
				c.lease = now.Add(2 * time.Minute)
				_, finishErr := s.store.finishAttempt(ctx, c, nil, func(t *target) {
					t.githubID = now.Unix()
					t.succeed(t.version, t.desired, now)
				})
				err = errors.Join(err, finishErr)
			}
			return err
		})
	}
	const page = 1000
	return []kittest.Cost{
		{Name: "start-up", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			_, err := s.store.claim(ctx, workers, now, now, func(target) bool { return true })
			return errors.Join(err, s.store.freeLeases(ctx, now))
		})},
		{Name: "list", Rows: page, Do: list(&reporterv1.ListTargetsRequest{})},
		{Name: "list of a repository", Rows: page, Do: list(&reporterv1.ListTargetsRequest{Repository: "octo/sss5"})},
		{Name: "list of a repository that has none", Rows: page, Do: list(&reporterv1.ListTargetsRequest{Repository: "octo/none"})},
		{Name: "list of a commit", Rows: page, Do: list(&reporterv1.ListTargetsRequest{Sha: w.sha})},
		{Name: "list of what is untold", Rows: page, Do: list(&reporterv1.ListTargetsRequest{States: []reporterv1.Target_State{
			reporterv1.Target_STATE_PENDING, reporterv1.Target_STATE_FAILING, reporterv1.Target_STATE_PAUSED,
		}})},
		{Name: "list of what is kept", Rows: page, Do: list(&reporterv1.ListTargetsRequest{States: []reporterv1.Target_State{kept}})},
		{Name: "list of what was told", Rows: page, Do: list(&reporterv1.ListTargetsRequest{States: []reporterv1.Target_State{told}})},
		{Name: "metrics", Rows: page, Do: do(func(ctx context.Context, s *Service) error { _, err := s.store.oldestUnpublished(ctx); return err })},
		{Name: "one build", Rows: page, Do: tell("forge/test")},
		{Name: "one deploy to production", Rows: page, Do: tell("forge/deploy-production")},
		{Name: "targets to read back", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			_, err := s.store.claimVerify(ctx, now, func(int64) bool { return true })
			return err
		})},
		{Name: "installation resumed", Rows: page, Do: do(func(ctx context.Context, s *Service) error {
			return s.store.resume(ctx, w.installation, 0, now, reporterv1.Target_STATE_PAUSED)
		})},
		{Name: "prune with nothing old", Rows: page, Do: do(func(ctx context.Context, s *Service) error { return s.prune(ctx) })},
	}
}
