package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// waitEvents are the waits that a span tells of, as "reason for duration".
func waitEvents(span sdktrace.ReadOnlySpan) (told []string) {
	for _, event := range span.Events() {
		var reason, lasted attribute.Value
		for _, of := range event.Attributes {
			switch of.Key {
			case "forge.reason":
				reason = of.Value
			case "forge.duration":
				lasted = of.Value
			}
		}
		if event.Name == "waits" {
			told = append(told, fmt.Sprintf("%s for %v", reason.AsString(), time.Duration(lasted.AsFloat64()*float64(time.Second))))
		}
	}
	return told
}

// spanOf waits for a span of a build, and returns it.
func spanOf(r *rig, name, id string) sdktrace.ReadOnlySpan {
	r.t.Helper()
	var found sdktrace.ReadOnlySpan
	kittest.Eventually(r.t, patience, func() error {
		for _, span := range r.spans.Ended() {
			if span.Name() == name && slices.ContainsFunc(span.Attributes(), func(of attribute.KeyValue) bool {
				return of.Key == "cicd.pipeline.run.id" && of.Value.AsString() == id
			}) {
				found = span
				return nil
			}
		}
		return errors.New("no span " + name)
	})
	return found
}

// Whatever a build waits for after it has its place is shown, counted by its reason, and
// in its trace with how long that took.
func TestWhatStartedBuildsWaitForIsCountedAndTraced(t *testing.T) {
	r := sqliteRig(t)
	reader := sdkmetric.NewManualReader()
	r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	slow, _ := r.engine.slow(&r.deps)
	r.start()
	waiting := func(reason schedulerv1.Build_Reason, want float64) {
		t.Helper()
		kittest.Eventually(t, patience, func() error {
			if got := kittest.Metric(t, reader, "forge.scheduler.waiting", "reason="+wording.Value(reason)); got != want {
				return fmt.Errorf("%v wait for %v, want %v", got, reason, want)
			}
			return nil
		})
	}
	id := r.built(opened(1, "aaa"))
	slow.awaitStarts(t, 1)
	waiting(schedulerv1.Build_REASON_MACHINE, 1)
	waiting(schedulerv1.Build_REASON_CAPACITY, 0)
	r.clock.Advance(3 * time.Second)
	close(slow.room)
	u := r.attach(r.spec(id, 1).Runner.Token)
	waiting(schedulerv1.Build_REASON_SOURCE, 1)
	if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING || b.GetReason() != schedulerv1.Build_REASON_SOURCE {
		t.Errorf("without its source: %v, %v", b.GetState(), b.GetReason())
	}
	r.clock.Advance(5 * time.Second)
	u.send(unpacked(1))
	u.acked(1)
	if b := r.build(id); b.GetReason() != schedulerv1.Build_REASON_UNSPECIFIED {
		t.Errorf("with its source: %v", b.GetReason())
	}
	u.send(began(2, 1), exited(3, 1, 1), over(4, schedulerv1.Ended_CAUSE_DONE))
	r.becomes(id, schedulerv1.Build_STATE_FAILED)
	for name, want := range map[string][]string{"wait in queue": {"capacity for 0s"}, "start container": {"machine for 3s"}, "RUN test": {"source for 5s"}} {
		if got := waitEvents(spanOf(r, name, id)); !slices.Equal(got, want) {
			t.Errorf("%s tells of %q, want %q", name, got, want)
		}
	}
	var kept []schedulerv1.Build_Reason
	for _, wait := range r.build(id).GetWaits() {
		kept = append(kept, wait.GetReason())
		if wait.GetEndTime() == nil {
			t.Errorf("it waits for ever for %v", wait.GetReason())
		}
	}
	if want := []schedulerv1.Build_Reason{schedulerv1.Build_REASON_CAPACITY, schedulerv1.Build_REASON_MACHINE, schedulerv1.Build_REASON_SOURCE}; !slices.Equal(kept, want) {
		t.Errorf("it has waited for %v, want %v", kept, want)
	}
}

// A wait that the engine's absence makes longer is told of with it, and so is that of a
// build that never began.
func TestTraceTellsForHowLongABuildWasQueuedForWhat(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.startErr = errors.New("no answer") })
		id := r.built(opened(1, "aaa"))
		away := func() {
			t.Helper()
			kittest.Eventually(t, patience, func() error {
				if r.build(id).GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
					return errors.New("the engine was not asked")
				}
				return nil
			})
		}
		away()
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, patience, func() error {
			for _, span := range r.spans.Ended() {
				if told := waitEvents(span); span.Name() == "wait in queue" && slices.ContainsFunc(told, func(s string) bool { return strings.HasPrefix(s, "engine unavailable for ") }) {
					return nil
				}
			}
			return errors.New("no span tells that the engine was away")
		})
	})
}

// The label of each reason is the reason's own word.
func TestMetricsHaveEveryReasonToWaitByItsName(t *testing.T) {
	r := sqliteRig(t)
	reader := sdkmetric.NewManualReader()
	r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	r.start()
	for number, name := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		if _, waits := wording.Waits(reason); !waits {
			continue
		}
		err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error {
			return t.AddBuild(ctx, &store.Build{Build: &schedulerv1.Build{
				Id: fmt.Sprintf("waits%d", number), Repository: repository(), Action: schedulerv1.Build_ACTION_TEST, Sha: name, Context: "forge/test",
				State: schedulerv1.Build_STATE_WAITING, Reason: reason,
			}, Config: usual()})
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := kittest.Metric(t, reader, "forge.scheduler.waiting", "reason="+wording.Value(reason)); got != 1 {
			t.Errorf("%v wait for %v, want one", got, reason)
		}
	}
}
