package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

func (e *memoryEngine) stopAsked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.stops)
}

// A deploy on a machine that is lost holds its environment until a person who knows
// says otherwise.
func TestEnvironmentOfALostMachineIsReleasedByForce(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		_, log := r.engine.slow(&r.deps)
		r.deps.Engine = r.engine
		r.start()
		release := func(force bool, by string) (*schedulerv1.Environment, error) {
			answer, err := r.places.ReleaseEnvironment(r.t.Context(), &schedulerv1.ReleaseEnvironmentRequest{Repository: "Acme/shop", Environment: "staging", Force: force, By: by})
			return answer.GetEnvironment(), err
		}
		refused := func(want string) {
			t.Helper()
			if _, err := release(false, ""); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		id := r.built(mergedInto(1, "main", "m1"))
		next := r.built(mergedInto(2, "main", "m2"))
		spec := r.spec(id, 1)
		r.attach(spec.Runner.Token)
		refused("lets go of it once it has ended")
		if _, err := release(true, ""); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("of a deploy that runs: %v", err)
		}
		r.engine.sees(engine.Container{Attempt: spec.Attempt, Running: true, Unreachable: true, ExitCode: -1, Machine: "worker-2"})
		r.engine.set(func(e *memoryEngine) {
			e.stopErr = errors.New("machine worker-2 is not heard of; what ran there may still run")
		})
		r.clock.Advance(2*time.Minute + time.Second)
		r.sweep()
		r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		want := "staging is held by build " + id + ": machine worker-2 is not heard of; what ran there may still run; its commands end by 2026-11-23 13:00 UTC at the latest" +
			"; if it is gone for good: forge environments release Acme/shop staging --force"
		kittest.Eventually(t, patience, func() error {
			if got := r.build(next); got.GetMessage() != want || got.GetState() != schedulerv1.Build_STATE_WAITING {
				r.clock.Advance(30 * time.Second)
				r.wake()
				return fmt.Errorf("%v %q after %d Stops, want %q", got.GetState(), got.GetMessage(), r.engine.stopAsked(), want)
			}
			return nil
		})
		if held := r.staging().GetHeldMessage(); !strings.HasPrefix(held, "machine worker-2 is not heard of") {
			t.Errorf("staging says %q", held)
		}
		refused("machine worker-2 is not heard of")
		if _, err := release(true, strings.Repeat("é", maxBy+1)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a long name: %v", err)
		}
		shown, err := release(true, "ada@laptop")
		if err != nil || shown.GetDeploying().GetId() != next || shown.GetHeldMessage() != "" {
			t.Errorf("released: %v, %v", shown, err)
		}
		log.has(t, `msg="environment released by force" repository=Acme/shop environment=staging build=`+id, "by=ada@laptop")
		// The machine is back: its container goes, and nobody else's environment.
		r.attach(r.spec(next, 1).Runner.Token)
		r.engine.set(func(e *memoryEngine) { e.stopErr = nil })
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(spec.Attempt) {
				r.clock.Advance(time.Second)
				r.wake()
				return errors.New("the lost container is still there")
			}
			return nil
		})
		if e := r.staging(); e.GetDeploying().GetId() != next {
			t.Errorf("%v", e)
		}
	})
}

func (l *logBuffer) has(t *testing.T, texts ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range texts {
		if !strings.Contains(l.text.String(), text) {
			t.Errorf("the log lacks %q:\n%s", text, l.text.String())
		}
	}
}
