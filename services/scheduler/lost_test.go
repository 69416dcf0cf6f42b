package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestLostTestRunsOnceMoreAndThenErrors(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		first := r.spec(id, 1)
		u := r.attach(first.Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		vanish := func(attempt string) { r.engine.set(func(e *memoryEngine) { delete(e.containers, attempt) }) }
		vanish(first.Attempt)
		r.sweep()
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("%v although its runner was just heard", b.GetState())
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = errors.New("the daemon is gone") })
		r.clock.Advance(11 * time.Second)
		if err := r.service.attempts.Sweep(t.Context()); err == nil || r.build(id).GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("an engine that cannot tell: %v, %v", err, r.build(id).GetState())
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = nil })
		r.sweep()
		second := r.spec(id, 2)
		if err := u.refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the lost runner: %v", err)
		}
		// Nothing the first attempt left shows in the second.
		if b := r.build(id); b.GetSteps()[0].GetState() != schedulerv1.Step_STATE_PENDING {
			t.Errorf("%v", b)
		}
		if err := r.stream(first.Runner.Token, &schedulerv1.Hello{RunnerId: "runner-1"}).refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the lost runner came back: %v", err)
		}
		r.attach(second.Runner.Token)
		r.engine.set(func(e *memoryEngine) {
			e.containers[second.Attempt] = engine.Container{Attempt: second.Attempt, ExitCode: 137}
		})
		r.clock.Advance(11 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetMessage() != "the container ended with exit code 137 before its commands did" {
			t.Errorf("%v", b)
		}
	})
}

func TestWhatIsStoppedFromOutsideIsLost(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		stopped := func(id string, attempt int32) {
			r.attach(r.spec(id, attempt).Runner.Token).send(began(1, 1), over(2, schedulerv1.Ended_CAUSE_STOPPED))
		}
		id := r.built(opened(1, "aaa"))
		stopped(id, 1)
		stopped(id, 2)
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetAttempt() != 2 {
			t.Errorf("%v", b)
		}
		id = r.built(mergedInto(2, "main", "m1"))
		stopped(id, 1)
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetAttempt() != 1 {
			t.Errorf("a deploy: %v", b)
		}
	})
}

func TestLostDeployIsNotRunAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(mergedInto(1, "main", "m1"))
		next := r.built(mergedInto(2, "main", "m2"))
		r.attach(r.spec(id, 1).Runner.Token)
		r.engine.set(func(e *memoryEngine) { clear(e.containers) })
		r.clock.Advance(11 * time.Second)
		r.sweep()
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetMessage() != "the container is gone" {
			t.Errorf("%v", b)
		}
		r.spec(next, 1)
	})
}

func TestContainerOutOfMemoryFailsTheBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		r.attach(spec.Runner.Token)
		r.engine.set(func(e *memoryEngine) {
			e.containers[spec.Attempt] = engine.Container{Attempt: spec.Attempt, ExitCode: 137, Ending: engine.OutOfMemory}
		})
		r.clock.Advance(11 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_OUT_OF_MEMORY || b.GetMessage() != "there was no memory left" {
			t.Errorf("%v", b)
		}
	})
}

func TestStepOutOfMemoryFailsTheBuildAndNamesTheLimit(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := usual()
		config.Resources = &configv1.Resources{Memory: 48 << 20}
		r.config.set("aaa", valid(config))
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		killed := exited(2, 1, 137)
		killed.GetStepEnded().OutOfMemory = true
		u.send(began(1, 1), killed, over(3, schedulerv1.Ended_CAUSE_DONE))
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_OUT_OF_MEMORY || !b.GetSteps()[0].GetOutOfMemory() ||
			b.GetMessage() != `step 1 "vet" ended with exit code 137: the memory limit of 48 MiB was reached` {
			t.Errorf("%v", b)
		}
	})
}

func TestRunnerThatNeverComesErrorsTheBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		r.spec(id, 1)
		kittest.Eventually(t, patience, func() error {
			live, err := r.service.store.LiveAttempts(t.Context())
			if err != nil || len(live) != 1 || !live[0].Placed {
				return fmt.Errorf("live %v, %w", live, err)
			}
			return nil
		})
		r.clock.Advance(attempt.AttachWithin)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_START_FAILED || !strings.Contains(b.GetMessage(), "FORGE_RUNNER_URL") {
			t.Errorf("%v", b)
		}

		r.engine.set(func(e *memoryEngine) { e.tail = "level=WARN error=\"no such host\"\n" })
		id = r.built(opened(2, "bbb"))
		r.engine.sees(engine.Container{Attempt: r.spec(id, 1).Attempt, Running: true, ExitCode: -1, Machine: "worker-2"})
		kittest.Eventually(t, patience, func() error {
			if live, err := r.service.store.LiveAttempts(t.Context()); err != nil || len(live) != 1 || !live[0].Placed {
				return fmt.Errorf("live %v, %w", live, err)
			}
			return nil
		})
		r.sweep()
		r.clock.Advance(attempt.AttachWithin)
		r.sweep()
		b = r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if want := "the container runs on worker-2, but forgexec in it did not reach unix:///run/forge/runner.sock within 5m0s; it says: no such host"; b.GetMessage() != want {
			t.Errorf("%v, want %q", b, want)
		}
	})
}

func TestContainersOfNoLiveAttemptAreRemoved(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		r.pass(id)
		kept := r.built(opened(2, "bbb"))
		r.spec(kept, 1)
		r.engine.set(func(e *memoryEngine) {
			for _, name := range []string{store.AttemptName(id, 1), "somebody-else", store.AttemptName(strings.Repeat("z", 26), 3)} {
				e.containers[name] = engine.Container{Attempt: name, Running: true}
			}
		})
		r.sweep()
		kittest.Eventually(t, patience, func() error {
			all, _ := r.engine.List(t.Context())
			if len(all) != 1 || all[0].Attempt != store.AttemptName(kept, 1) {
				return fmt.Errorf("left: %v", all)
			}
			return nil
		})
	})
}
