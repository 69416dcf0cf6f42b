package attempt

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// metrics are what an operator watches of builds. Their labels are words of the
// contract and the engine's name: there are few.
type metrics struct {
	wait, duration, starts metric.Float64Histogram
	failures, losses       metric.Int64Counter
	caches                 metric.Int64Counter
}

// seconds are bounds that fit a container's start as well as a build of hours.
var seconds = metric.WithExplicitBucketBoundaries(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)

func newMetrics(meter metric.Meter, s *store.Store, capacity int) (*metrics, error) {
	m := &metrics{}
	for _, h := range []struct {
		into              *metric.Float64Histogram
		name, description string
	}{
		{&m.wait, "forge.scheduler.wait", "How long builds waited in the queue for an attempt, by action."},
		{&m.duration, "forge.scheduler.duration", "How long builds that ended had run, by action and result; 0: no command ran."},
		{&m.starts, "forge.scheduler.starts", "How long the engine took to start a container, or to say that it did not, by engine and result."},
	} {
		var err error
		if *h.into, err = meter.Float64Histogram(h.name, metric.WithUnit("s"), metric.WithDescription(h.description), seconds); err != nil {
			return nil, err
		}
	}
	var err error
	m.failures, err = meter.Int64Counter("forge.scheduler.engine.errors",
		metric.WithDescription("Calls of the engine that failed, by engine and call: start, stop, list, tail. A start that was refused or delayed has not failed."))
	if err != nil {
		return nil, err
	}
	m.losses, err = meter.Int64Counter("forge.scheduler.lost",
		metric.WithDescription("Attempts that were ended without a word of their runner, by engine and ending."))
	if err != nil {
		return nil, err
	}
	m.caches, err = meter.Int64Counter("forge.scheduler.caches",
		metric.WithDescription("Caches that builds asked for or saved, by result: hit, partial_hit, miss, saved, broken."))
	if err != nil {
		return nil, err
	}
	builds, err := meter.Int64ObservableGauge("forge.scheduler.builds",
		metric.WithDescription("Builds that have not ended, by state."))
	if err != nil {
		return nil, err
	}
	age, err := meter.Float64ObservableGauge("forge.scheduler.queued.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest build in the queue; 0: there is none."))
	if err != nil {
		return nil, err
	}
	stops, err := meter.Int64ObservableGauge("forge.scheduler.stops",
		metric.WithDescription("Containers that the engine is still to stop and remove."))
	if err != nil {
		return nil, err
	}
	stopsAge, err := meter.Float64ObservableGauge("forge.scheduler.stops.age", metric.WithUnit("s"),
		metric.WithDescription("For how long the oldest of these has waited; 0: there is none."))
	if err != nil {
		return nil, err
	}
	places, err := meter.Int64ObservableGauge("forge.scheduler.capacity",
		metric.WithDescription("How many builds run at once."))
	if err != nil {
		return nil, err
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		o.ObserveInt64(places, int64(capacity))
		counted, err := s.CountUnfinished(ctx)
		if err != nil {
			return err
		}
		for state := schedulerv1.Build_STATE_QUEUED; !store.Ended(state); state++ {
			o.ObserveInt64(builds, counted[state], metric.WithAttributes(attribute.String("state", wording.Value(state))))
		}
		oldest, err := s.OldestQueued(ctx)
		if err != nil {
			return err
		}
		o.ObserveFloat64(age, secondsSince(s.Now(), oldest))
		waiting, oldest, err := s.CountStops(ctx)
		if err != nil {
			return err
		}
		o.ObserveInt64(stops, waiting)
		o.ObserveFloat64(stopsAge, secondsSince(s.Now(), oldest))
		return nil
	}, builds, age, stops, stopsAge, places)
	return m, err
}

// secondsSince is 0 for the zero time.
func secondsSince(now, then time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}

func action(b *store.Build) attribute.KeyValue {
	return attribute.String("action", trigger.ActionOf(b.GetAction()).Name)
}

// kept records what a cache has come to. A runner's container may be anybody's: what
// is no word of the contract is not counted.
func (m *metrics) kept(ctx context.Context, kept *schedulerv1.Kept) {
	if _, known := schedulerv1.Kept_Result_name[int32(kept.GetResult())]; known {
		m.caches.Add(ctx, 1, metric.WithAttributes(attribute.String("result", wording.Value(kept.GetResult()))))
	}
}

// waited records that a build has left the queue.
func (m *metrics) waited(ctx context.Context, b *store.Build, since, now time.Time) {
	m.wait.Record(ctx, now.Sub(since).Seconds(), metric.WithAttributes(action(b)))
}

// ended records how a build has ended.
func (m *metrics) ended(b *store.Build) {
	if b.HasJobs() { // they are counted
		return
	}
	took := 0.0
	if b.GetStartTime() != nil {
		took = b.GetEndTime().AsTime().Sub(b.GetStartTime().AsTime()).Seconds()
	}
	m.duration.Record(context.Background(), took, metric.WithAttributes(action(b), attribute.String("result", wording.Value(b.GetState()))))
}

// started records what the engine answered when it was asked for a container.
func (m *metrics) started(ctx context.Context, name string, took time.Duration, err error) {
	result := "failed"
	switch {
	case err == nil:
		result = "started"
	case is[brokenOffError](err):
		result = "broken_off"
	case is[timedOutError](err):
		result = "timed_out"
	case fault.Is(err, fault.Invalid):
		result = "refused"
	case is[*engine.DelayError](err):
		result = "delayed"
	}
	if result == "failed" {
		m.engineFailed(ctx, name, "start")
	}
	m.starts.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("engine", name), attribute.String("result", result)))
}

// engineFailed records that the engine did not do what it was asked for.
func (m *metrics) engineFailed(ctx context.Context, name, call string) {
	m.failures.Add(ctx, 1, metric.WithAttributes(attribute.String("engine", name), attribute.String("call", call)))
}

// lost records that an attempt was ended without a word of its runner.
func (m *metrics) lost(ctx context.Context, name, ending string) {
	m.losses.Add(ctx, 1, metric.WithAttributes(attribute.String("engine", name), attribute.String("ending", ending)))
}
