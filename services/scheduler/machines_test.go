package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// sees has the engine find a container so.
func (e *memoryEngine) sees(c engine.Container) {
	e.set(func(e *memoryEngine) { e.containers[c.Attempt] = c })
}

func TestBuildOfAMachineOutOfReachIsLostOnceItIsSilentForLong(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		r.attach(spec.Runner.Token)
		away := engine.Container{Attempt: spec.Attempt, Running: true, Unreachable: true, ExitCode: -1, Machine: "worker-2"}
		r.engine.sees(away)
		r.clock.Advance(2 * time.Minute)
		r.sweep()
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING || b.GetMachine() != "worker-2" {
			t.Fatalf("out of reach for less than the grace: %v", b)
		}
		r.clock.Advance(time.Second)
		r.sweep()
		second := r.spec(id, 2)
		b := r.build(id)
		if want := "attempt 1 was lost, queued once more: machine worker-2 has not been heard of for 2m0s"; b.GetAttempt() != 2 || b.GetMachine() != "" {
			t.Errorf("%v, want %q", b, want)
		}
		// The machine is back, and forgexec with it: it is told that its attempt is over.
		away.Unreachable = false
		r.engine.sees(away)
		if err := r.stream(spec.Runner.Token, &schedulerv1.Hello{RunnerId: "runner-1"}).refused(); err == nil {
			t.Error("the lost runner came back")
		}
		r.sweep()
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(spec.Attempt) {
				return errors.New("the lost container is still there")
			}
			return nil
		})
		r.attach(second.Runner.Token).send(passing(2)...)
		r.becomes(id, schedulerv1.Build_STATE_PASSED)
	})
}

func TestWithdrawnTestRunsThreeTimes(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		withdraw := func(id string, attempt int32) {
			spec := r.spec(id, attempt)
			r.attach(spec.Runner.Token)
			r.engine.sees(engine.Container{Attempt: spec.Attempt, ExitCode: -1, Ending: engine.Withdrawn, Reason: "Preempted: by a pod of higher priority"})
			r.clock.Advance(11 * time.Second)
			r.sweep()
		}
		id := r.built(opened(1, "aaa"))
		withdraw(id, 1)
		withdraw(id, 2)
		withdraw(id, 3)
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if want := "the container ended before its commands did: Preempted: by a pod of higher priority"; b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetMessage() != want || b.GetAttempt() != 3 {
			t.Errorf("%v", b)
		}
		id = r.built(mergedInto(2, "main", "m1"))
		withdraw(id, 1)
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetAttempt() != 1 {
			t.Errorf("a deploy: %v", b)
		}
	})
}

func TestContainerOutOfDiskFailsTheBuild(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		reader := sdkmetric.NewManualReader()
		r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		r.deps.Limits.Disk = "10GiB"
		r.start()
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		r.attach(spec.Runner.Token)
		r.engine.sees(engine.Container{Attempt: spec.Attempt, ExitCode: -1, Ending: engine.OutOfDisk})
		r.clock.Advance(11 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_OUT_OF_DISK || b.GetMessage() != "used more disk than its limit of 10GiB" {
			t.Errorf("%v", b)
		}
		if n := kittest.Metric(t, reader, "cicd.system.errors", "cicd.system.component=runner", "error.type=out_of_disk"); n != 1 {
			t.Errorf("%v attempts are counted", n)
		}
	})
}

func TestEngineThatIsAwayForAMinuteIsSaidToBe(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		reader := sdkmetric.NewManualReader()
		r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		r.start()
		away := func() string {
			answer, err := r.service.GetEngine(t.Context(), &schedulerv1.GetEngineRequest{})
			if err != nil || answer.GetName() != "memory" {
				t.Fatalf("%v, %v", answer, err)
			}
			if answer.GetAwayTime() == nil {
				return ""
			}
			return answer.GetAwayTime().AsTime().Format(time.TimeOnly)
		}
		fail := func() {
			t.Helper()
			if err := r.service.attempts.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "no quorum") {
				t.Fatalf("sweep: %v", err)
			}
		}
		if got := away(); got != "" {
			t.Errorf("away since %s", got)
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = errors.New("no quorum") })
		fail()
		r.clock.Advance(59 * time.Second)
		fail()
		if got := away(); got != "" {
			t.Errorf("away since %s for less than a minute", got)
		}
		r.clock.Advance(time.Second)
		if got := away(); got != "12:00:00" {
			t.Errorf("away since %q", got)
		}
		if n := kittest.Metric(t, reader, "cicd.system.errors", "cicd.system.component=engine", "error.type=list"); n < 2 {
			t.Errorf("%v calls are counted", n)
		}
		// What was seen outlives this process, and other replicas know it.
		r.stop()
		r.start()
		fail()
		if got := away(); got != "12:00:00" {
			t.Errorf("after a restart: away since %q", got)
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = nil })
		r.sweep()
		if got := away(); got != "" {
			t.Errorf("back, and away since %s", got)
		}
	})
}

// A container that cannot be removed is asked for ever more rarely, however often
// the engine lists it.
func TestSweepLeavesAStopItsPauses(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("machine worker-2 is not heard of") })
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		kittest.Eventually(t, patience, func() error { // a Start that returns to an attempt that is over has it stopped once more
			for _, span := range r.spans.Ended() {
				if span.Name() == "start container" {
					return nil
				}
			}
			return errors.New("the start is not settled")
		})
		r.attach(token).send(passing(2)...)
		r.becomes(id, schedulerv1.Build_STATE_PASSED)
		asked := func() int {
			r.engine.mu.Lock()
			defer r.engine.mu.Unlock()
			return len(r.engine.stops)
		}
		kittest.Eventually(t, patience, func() error {
			if asked() == 0 {
				return errors.New("not stopped")
			}
			return nil
		})
		kittest.Eventually(t, patience, func() error { // the answer is stored
			if stops, err := r.service.store.ClaimStops(t.Context(), 9); err != nil || len(stops) > 0 {
				return fmt.Errorf("due: %v, %w", stops, err)
			}
			return nil
		})
		before := asked()
		for range 5 {
			r.sweep()
			r.wake()
		}
		if stops, err := r.service.store.ClaimStops(t.Context(), 9); err != nil || len(stops) > 0 {
			t.Errorf("due at once: %v, %v", stops, err)
		}
		if got := asked(); got != before {
			t.Errorf("asked %d times more", got-before)
		}
	})
}
