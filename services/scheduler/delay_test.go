package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// delayedBuild is one that waits for the engine, for that reason.
func (r *rig) delayedBuild(reason string, within time.Duration) (id string) {
	r.t.Helper()
	r.engine.set(func(e *memoryEngine) {
		e.startErr = &engine.DelayError{Err: errors.New(reason), Pause: time.Minute, Within: within}
	})
	id = r.built(opened(1, "aaa"))
	kittest.Eventually(r.t, patience, func() error {
		b := r.build(id)
		if b.GetState() != schedulerv1.Build_STATE_QUEUED || b.GetMessage() != reason || b.GetReason() != schedulerv1.Build_REASON_RETRY || !b.GetRetryTime().AsTime().Equal(r.clock.Now().Add(time.Minute)) {
			return fmt.Errorf("%v", b)
		}
		return nil
	})
	return id
}

func TestWhatPassesByItselfIsWaitedForAndNamed(t *testing.T) {
	each(t, func(_ *testing.T, r *rig) {
		id := r.delayedBuild("docker.io limits how many images are pulled", 0)
		r.engine.set(func(e *memoryEngine) { e.startErr = nil })
		r.clock.Advance(time.Minute)
		r.wake()
		r.pass(id)
	})
}

func TestWhatDoesNotPassErrorsTheBuildInTime(t *testing.T) {
	for name, c := range map[string]struct{ within, want time.Duration }{
		"of the engine":       {3 * time.Minute, 3 * time.Minute},
		"the build's timeout": {0, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			id := r.delayedBuild("no addresses left", c.within)
			begin := r.clock.Now()
			kittest.Eventually(t, patience, func() error {
				b := r.build(id)
				if b.GetState() == schedulerv1.Build_STATE_QUEUED {
					r.clock.Advance(time.Minute)
					r.wake()
				}
				if b.GetState() != schedulerv1.Build_STATE_ERRORED {
					return fmt.Errorf("%v", b)
				}
				if want := fmt.Sprintf("no addresses left; it was still so after %v", c.want); b.GetMessage() != want || b.GetReason() != schedulerv1.Build_REASON_START_FAILED {
					t.Errorf("%v, want %q", b, want)
				}
				return nil
			})
			if took := r.clock.Now().Sub(begin); took < c.want {
				t.Errorf("given up after %v", took)
			}
		})
	}
}
