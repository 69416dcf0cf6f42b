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
			if got := kittest.Metric(t, reader, name, attributes...); got != value {
				t.Errorf("%s %v is %v, want %v", name, attributes, got, value)
			}
		}
		const (
			places = "cicd.worker.count"
			active = "cicd.pipeline.run.active"
			took   = "cicd.pipeline.run.duration"
			test   = "cicd.pipeline.name=test"
		)
		want(places, 2, "cicd.worker.state=available")
		want("forge.scheduler.waiting", 0, "reason=capacity")
		want("forge.scheduler.engine.away", 0)

		passes, runs := r.built(opened(1, "aaa")), r.built(opened(2, "bbb"))
		r.attach(r.spec(runs, 1).Runner.Token)
		r.pass(passes)
		want(active, 1)
		want(active, 1, test, "state=running", "cicd.pipeline.run.state=executing")
		want(places, 1, "cicd.worker.state=busy")
		want(places, 1, "cicd.worker.state=available")
		want(took, 1, test, "cicd.pipeline.run.state=executing", "cicd.pipeline.result=success")
		want(took, 2, test, "cicd.pipeline.run.state=pending")
		want("forge.scheduler.starts", 2, "engine="+r.engine.Name(), "result=started")

		r.config.set("ccc", invalid)
		r.send(opened(3, "ccc"))
		want(took, 1, test, "cicd.pipeline.result=error")
		want("cicd.pipeline.run.errors", 1, test, "error.type=config invalid")

		r.engine.set(func(e *memoryEngine) { e.startErr = errors.New("no answer") })
		waits := r.built(opened(4, "ddd"))
		kittest.Eventually(t, patience, func() error {
			if r.build(waits).GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
				return errors.New("the engine was not asked")
			}
			return nil
		})
		want(active, 1, "state=queued", "cicd.pipeline.run.state=pending")
		want("forge.scheduler.waiting", 1, "reason=engine unavailable")
		for name, attributes := range map[string][]string{
			"forge.scheduler.starts": {"result=failed"}, "cicd.system.errors": {"cicd.system.component=engine", "error.type=start"},
		} {
			if failed := kittest.Metric(t, reader, name, attributes...); failed < 1 {
				t.Errorf("%v starts failed: %s", failed, name)
			}
		}
		r.clock.Advance(time.Hour)
		if age := kittest.Metric(t, reader, "forge.scheduler.waiting.age", "reason=engine unavailable"); age < 3600 || age > 3700 {
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
