package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestReporterThatWasDownIsToldTheNewestInTheEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.reporter.set(func(f *fakeReporter) { f.down = true })
		id := r.built(opened(1, "aaa"))
		r.pass(id)
		kittest.Eventually(t, patience, func() error {
			r.reporter.mu.Lock()
			defer r.reporter.mu.Unlock()
			if r.reporter.refused == 0 {
				return errors.New("the reporter was not asked")
			}
			return nil
		})
		r.reporter.set(func(f *fakeReporter) { f.down = false })
		kittest.Eventually(t, patience, func() error {
			r.clock.Advance(time.Minute)
			r.wake()
			if r.reporter.shows("aaa", "forge/test").GetBuild().GetState() != schedulerv1.Build_STATE_PASSED {
				return errors.New("not told yet")
			}
			return nil
		})
		var versions []int64
		r.reporter.set(func(f *fakeReporter) {
			for _, report := range f.reports {
				versions = append(versions, report.GetVersion())
			}
		})
		if !slices.IsSorted(versions) || versions[0] == sqldb.Micros(noon) {
			t.Errorf("versions told %v: in order, and not what was over by then", versions)
		}
	})
}

func TestWhatTheReporterWasToldIsNotToldAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.pass(r.built(opened(1, "aaa")))
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		kittest.Eventually(t, patience, func() error {
			var owed int
			err := r.service.store.DB.Read().QueryRowContext(t.Context(),
				`SELECT count(*) FROM targets WHERE due_time < $1`, int64(store.Never)).Scan(&owed)
			if owed > 0 {
				return fmt.Errorf("%d targets are to be told again", owed)
			}
			return err
		})
	})
}

// Two pull requests with one head commit share its status. Of equals the worst that
// still counts is shown.
func TestWorstOfTwoPullRequestsWithOneCommitIsShown(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		older, newer := r.built(opened(1, "aaa")), r.built(opened(2, "aaa"))
		r.pass(newer)
		u := r.attach(r.spec(older, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(older, schedulerv1.Build_STATE_FAILED)
		if b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_FAILED); b.GetId() != older {
			t.Errorf("shown %v", b)
		}
		r.send(closed("aaa", noon.Add(time.Minute)))
		if b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED); b.GetId() != newer {
			t.Errorf("shown, with the one that failed closed: %v", b)
		}
		r.pass(r.built(reopened("aaa", noon.Add(2*time.Minute))))
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
	})
}

// An outsider opens a fork's pull request with the commit of somebody's: whatever he
// does with it, the other's check stays as it is.
func TestOutsidersPullRequestChangesNobodysCheck(t *testing.T) {
	skipping := func(e *eventv1.Event) *eventv1.Event {
		pull(e).Title = "x [skip ci]"
		return e
	}
	for name, c := range map[string]struct {
		before schedulerv1.Build_State
		attack *eventv1.Event
	}{
		"a green one":                {schedulerv1.Build_STATE_PASSED, fromFork("eve", opened(2, "aaa"))},
		"a red one":                  {schedulerv1.Build_STATE_FAILED, fromFork("eve", opened(2, "aaa"))},
		"a red one, skipped":         {schedulerv1.Build_STATE_FAILED, skipping(fromFork("eve", opened(2, "aaa")))},
		"a green one, skipped":       {schedulerv1.Build_STATE_PASSED, skipping(fromFork("eve", opened(2, "aaa")))},
		"a red one of jobs":          {schedulerv1.Build_STATE_FAILED, fromFork("eve", opened(2, "aaa"))},
		"a red one of jobs, skipped": {schedulerv1.Build_STATE_FAILED, skipping(fromFork("eve", opened(2, "aaa")))},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				contexts, runs := []string{"forge/test"}, 0
				if strings.Contains(name, "jobs") {
					contexts, runs = append(contexts, "forge/test/lint"), 1
					r.config.set("aaa", ofJobs(job("lint")))
				}
				mine := r.built(opened(1, "aaa"))
				id := mine
				if runs > 0 {
					id = store.JobID(mine, 1)
				}
				if c.before == schedulerv1.Build_STATE_PASSED {
					r.pass(id)
				} else {
					r.fail(id, 1, 1)
				}
				r.shown("aaa", "forge/test", c.before)
				from, before := 0, map[string]int64{}
				for _, name := range contexts {
					before[name] = r.reporter.shows("aaa", name).GetVersion()
				}
				r.reporter.set(func(f *fakeReporter) { from = len(f.reports) })
				r.send(c.attack)
				end := closed("aaa", noon.Add(time.Minute))
				end.DeliveryId, pull(end).Number = "closed-by-eve", 2
				r.send(fromFork("eve", end))
				r.pass(r.built(opened(3, "fence")))
				r.shown("fence", "forge/test", schedulerv1.Build_STATE_PASSED)
				r.reporter.set(func(f *fakeReporter) {
					for _, report := range f.reports[from:] {
						// An older one that comes late counts for nothing.
						if b := report.GetBuild(); report.GetVersion() > before[b.GetContext()] && b.GetSha() == "aaa" && slices.Contains(contexts, b.GetContext()) && report.GetStanding() == 0 && b.GetState() != c.before {
							t.Errorf("shown meanwhile: %v", report)
						}
					}
				})
			})
		})
	}
}

func TestDecisionSurvivesARestart(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.start()
		e := opened(1, "aaa")
		id := r.built(e)
		r.stop()
		r.start()
		if d := r.send(e); d.GetReason() != eventv1.Reason_REASON_BUILT || d.GetBuildIds()[0] != id {
			t.Errorf("%v", d)
		}
	})
}
