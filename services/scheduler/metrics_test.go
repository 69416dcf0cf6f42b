package scheduler

import (
	"errors"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestMetricsSayWhatRunsWaitsAndEnded(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		reader := sdkmetric.NewManualReader()
		r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		r.start()
		want := func(name string, value float64, attributes ...string) {
			t.Helper()
			if got := kittest.Metric(t, reader, "forge.scheduler."+name, attributes...); got != value {
				t.Errorf("%s %v is %v, want %v", name, attributes, got, value)
			}
		}
		want("capacity", 2)
		want("builds", 0)
		want("queued.age", 0)

		passes, runs := r.built(opened(1, "aaa")), r.built(opened(2, "bbb"))
		r.attach(r.spec(runs, 1).Runner.Token)
		r.pass(passes)
		want("builds", 1)
		want("builds", 1, "state=running")
		want("duration", 1, "action=test", "result=passed")
		want("wait", 2, "action=test")
		want("starts", 2, "engine="+r.engine.Name(), "result=started")

		r.config.set("ccc", invalid)
		r.send(opened(3, "ccc"))
		want("duration", 1, "action=test", "result=errored")

		r.engine.set(func(e *memoryEngine) { e.startErr = errors.New("no answer") })
		waits := r.built(opened(4, "ddd"))
		kittest.Eventually(t, patience, func() error {
			if r.build(waits).GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
				return errors.New("the engine was not asked")
			}
			return nil
		})
		want("builds", 1, "state=queued")
		if failed := kittest.Metric(t, reader, "forge.scheduler.starts", "result=failed"); failed < 1 {
			t.Errorf("%v starts failed", failed)
		}
		r.clock.Advance(time.Hour)
		if age := kittest.Metric(t, reader, "forge.scheduler.queued.age"); age < 3000 || age > 3600 {
			t.Errorf("the oldest has waited for %v s", age)
		}
	})
}

// Each try moves the time of the next one; the age counts from the first.
func TestMetricsSayHowLongContainersAreStillToBeStopped(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		reader := sdkmetric.NewManualReader()
		r.deps.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		r.start()
		stops := func(name string) float64 { return kittest.Metric(t, reader, "forge.scheduler.stops"+name) }
		if stops("") != 0 || stops(".age") != 0 {
			t.Errorf("%v are to be stopped, for %v s", stops(""), stops(".age"))
		}
		r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("machine worker-2 is not heard of") })
		r.pass(r.built(opened(1, "aaa")))
		tries := func() (n int) {
			r.engine.set(func(e *memoryEngine) { n = len(e.stops) })
			return n
		}
		for hours := range 3 {
			before := tries()
			r.clock.Advance(time.Hour)
			kittest.Eventually(t, patience, func() error {
				if tries() == before {
					return errors.New("it was not tried again")
				}
				return nil
			})
			age := time.Duration(stops(".age")) * time.Second
			if least := time.Duration(hours+1) * time.Hour; stops("") != 1 || age < least || age > least+time.Hour/2 {
				t.Errorf("%v are to be stopped, for %v; want 1, for %v", stops(""), age, least)
			}
		}
		r.engine.set(func(e *memoryEngine) { e.stopErr = nil })
		r.clock.Advance(time.Hour)
		kittest.Eventually(t, patience, func() error {
			if stops("") != 0 || stops(".age") != 0 {
				return errors.New("it is still to be stopped")
			}
			return nil
		})
	})
}
