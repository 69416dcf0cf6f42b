package scheduler

import (
	"errors"
	"fmt"
	"slices"
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

func TestOlderBuildOfASharedTargetIsNotShownAnyMore(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		older, newer := r.built(opened(1, "aaa")), r.built(opened(2, "aaa"))
		r.pass(newer)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		u := r.attach(r.spec(older, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(older, schedulerv1.Build_STATE_FAILED)
		fence := r.built(opened(3, "bbb"))
		r.pass(fence)
		r.shown("bbb", "forge/test", schedulerv1.Build_STATE_PASSED)
		if b := r.reporter.shows("aaa", "forge/test").GetBuild(); b.GetId() != newer || b.GetState() != schedulerv1.Build_STATE_PASSED {
			t.Errorf("shown %v", b)
		}
	})
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
