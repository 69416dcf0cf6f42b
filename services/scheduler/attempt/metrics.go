package attempt

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// metrics are what an operator watches of builds. A pipeline is an action, and a run a
// build of it, or a job of such a build. Labels are words of the contract and the engine's
// name: there are few.
type metrics struct {
	duration, starts metric.Float64Histogram
	errors, failures metric.Int64Counter
	caches, printed  metric.Int64Counter
	toolSpans        metric.Int64Counter
	estimates        metric.Int64Counter
}

// Parts of Forge that metrics blame.
const (
	engineAtFault = "engine"
	runnerAtFault = "runner"
)

// seconds are bounds that fit a container's start as well as a build of hours.
var seconds = metric.WithExplicitBucketBoundaries(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &metrics{}
	var err error
	m.duration, err = meter.Float64Histogram("cicd.pipeline.run.duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("Duration of a pipeline run grouped by pipeline, state and result: pending until a container is asked for, executing while commands run."))
	if err != nil {
		return nil, err
	}
	m.starts, err = meter.Float64Histogram("forge.scheduler.starts", metric.WithUnit("s"), seconds,
		metric.WithDescription("How long the engine took to start a container, or to say that it did not, by engine and result."))
	if err != nil {
		return nil, err
	}
	m.errors, err = meter.Int64Counter("cicd.pipeline.run.errors", metric.WithUnit("{error}"),
		metric.WithDescription("The number of errors encountered in pipeline runs, by pipeline and reason."))
	if err != nil {
		return nil, err
	}
	m.failures, err = meter.Int64Counter("cicd.system.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Calls of the engine that failed, by call: start, stop, list, tail; and attempts whose runner was not heard any more, by ending."))
	if err != nil {
		return nil, err
	}
	m.caches, err = meter.Int64Counter("forge.scheduler.caches",
		metric.WithDescription("Caches that builds asked for or saved, by result."))
	if err != nil {
		return nil, err
	}
	m.estimates, err = meter.Int64Counter("forge.scheduler.estimates",
		metric.WithDescription("Builds that were placed after somebody was told when they would be, by outcome: right, early, late."))
	if err != nil {
		return nil, err
	}
	m.printed, err = meter.Int64Counter("forge.scheduler.log", metric.WithUnit("By"),
		metric.WithDescription("What commands have printed, as it is stored in logs."))
	if err != nil {
		return nil, err
	}
	m.toolSpans, err = meter.Int64Counter("forge.scheduler.tool.spans",
		metric.WithDescription("Spans that tools of builds have sent, by result: joined their build's trace, were foreign to it, left out as too many or too large."))
	return m, err
}

// countTools counts spans of tools.
func (m *metrics) countTools(ctx context.Context, joined, foreign, left int) {
	for result, count := range map[string]int{"joined": joined, "foreign": foreign, "left_out": left} {
		m.toolSpans.Add(ctx, int64(count), metric.WithAttributes(attribute.String("result", result)))
	}
}

// begin counts none of what may happen: whoever watches for the first sees it as one more
// then, and not as the begin of a series.
func (m *metrics) begin(ctx context.Context) {
	m.countTools(ctx, 0, 0, 0)
	for _, call := range []string{"start", "stop", "list", "tail"} {
		m.failures.Add(ctx, 0, metric.WithAttributes(semconv.CICDSystemComponent(engineAtFault), semconv.ErrorTypeKey.String(call)))
	}
	for _, outcome := range []string{estimateRight, estimateEarly, estimateLate} {
		m.estimates.Add(ctx, 0, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
	for result := range schedulerv1.Kept_Result_name {
		if result := schedulerv1.Kept_Result(result); result != schedulerv1.Kept_RESULT_UNSPECIFIED {
			m.caches.Add(ctx, 0, metric.WithAttributes(attribute.String("result", wording.Value(result))))
		}
	}
}

// observe has an operator see what is there now.
func observe(meter metric.Meter, s *Service) error {
	active, err := meter.Int64ObservableUpDownCounter("cicd.pipeline.run.active", metric.WithUnit("{run}"),
		metric.WithDescription("The number of pipeline runs currently active in the system by state."))
	if err != nil {
		return err
	}
	workers, err := meter.Int64ObservableUpDownCounter("cicd.worker.count", metric.WithUnit("{worker}"),
		metric.WithDescription("Places for builds by state: busy, available, offline while the engine is away."))
	if err != nil {
		return err
	}
	waiting, err := meter.Int64ObservableGauge("forge.scheduler.waiting",
		metric.WithDescription("Builds, and jobs of those that have some, that wait, by the reason: capacity is a place."))
	if err != nil {
		return err
	}
	waitingAge, err := meter.Float64ObservableGauge("forge.scheduler.waiting.age", metric.WithUnit("s"),
		metric.WithDescription("For how long the oldest of these has waited."))
	if err != nil {
		return err
	}
	away, err := meter.Float64ObservableGauge("forge.scheduler.engine.away", metric.WithUnit("s"),
		metric.WithDescription("For how long the engine does not answer; 0: it does."))
	if err != nil {
		return err
	}
	stops, err := meter.Int64ObservableGauge("forge.scheduler.stops",
		metric.WithDescription("Containers that the engine is still to stop and remove."))
	if err != nil {
		return err
	}
	stopsAge, err := meter.Float64ObservableGauge("forge.scheduler.stops.age", metric.WithUnit("s"),
		metric.WithDescription("For how long the oldest of these has waited; 0: there is none."))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		now, err := lookAround(ctx, s)
		if err != nil {
			s.log.WarnContext(ctx, "metrics lack what the queue is like", "error", err)
			return nil
		}
		for of, count := range now.active {
			o.ObserveInt64(active, count, metric.WithAttributes(pipeline(of.Action), runState(of.State), attribute.String("state", wording.Value(of.State))))
		}
		for state, count := range now.workers(int64(s.Capacity)) {
			o.ObserveInt64(workers, count, metric.WithAttributes(state))
		}
		for reason, of := range now.waiting {
			why := metric.WithAttributes(attribute.String("reason", wording.Value(reason)))
			o.ObserveInt64(waiting, of.Count, why)
			o.ObserveFloat64(waitingAge, secondsSince(s.now(), of.Oldest), why)
		}
		o.ObserveFloat64(away, secondsSince(s.now(), now.away))
		o.ObserveInt64(stops, now.stops)
		o.ObserveFloat64(stopsAge, secondsSince(s.now(), now.oldestStop))
		return nil
	}, active, workers, waiting, waitingAge, away, stops, stopsAge)
	return err
}

// surroundings are what metrics tell of the queue and the engine at one moment.
type surroundings struct {
	active     map[store.Unfinished]int64
	waiting    map[schedulerv1.Build_Reason]store.Waits
	away       time.Time
	stops      int64
	oldestStop time.Time
}

func lookAround(ctx context.Context, s *Service) (now surroundings, err error) {
	if now.active, err = s.store.CountUnfinished(ctx); err != nil {
		return now, err
	}
	if now.waiting, err = s.store.CountWaiting(ctx); err != nil {
		return now, err
	}
	// What there is none of is told, too, for whoever draws it.
	for action := range schedulerv1.Build_Action_name {
		for state := schedulerv1.Build_STATE_QUEUED; action > 0 && !store.Ended(state); state++ {
			now.active[store.Unfinished{State: state, Action: schedulerv1.Build_Action(action)}] += 0
		}
	}
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		if _, waits := wording.Waits(reason); waits && now.waiting[reason].Count == 0 {
			now.waiting[reason] = store.Waits{}
		}
	}
	if now.away, err = s.EngineAway(ctx); err != nil {
		return now, err
	}
	now.stops, now.oldestStop, err = s.store.CountStops(ctx)
	return now, err
}

// workers are the places for builds by their state.
func (n surroundings) workers(capacity int64) map[attribute.KeyValue]int64 {
	busy := int64(0)
	for of, count := range n.active {
		if of.State >= schedulerv1.Build_STATE_STARTING {
			busy += count
		}
	}
	free, offline := max(0, capacity-busy), int64(0)
	if !n.away.IsZero() {
		free, offline = 0, free
	}
	return map[attribute.KeyValue]int64{
		semconv.CICDWorkerStateBusy: busy, semconv.CICDWorkerStateAvailable: free, semconv.CICDWorkerStateOffline: offline,
	}
}

// secondsSince is 0 for the zero time.
func secondsSince(now, then time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}

func pipeline(action schedulerv1.Build_Action) attribute.KeyValue {
	return semconv.CICDPipelineName(trigger.ActionOf(action).Name)
}

// runState is the state of a build in the words of the convention.
func runState(state schedulerv1.Build_State) attribute.KeyValue {
	if state == schedulerv1.Build_STATE_RUNNING {
		return semconv.CICDPipelineRunStateExecuting
	}
	return semconv.CICDPipelineRunStatePending
}

// resultOf is how a build has ended in the words of the convention.
func resultOf(state schedulerv1.Build_State) attribute.KeyValue {
	switch state {
	case schedulerv1.Build_STATE_PASSED:
		return semconv.CICDPipelineResultSuccess
	case schedulerv1.Build_STATE_FAILED:
		return semconv.CICDPipelineResultFailure
	case schedulerv1.Build_STATE_TIMED_OUT:
		return semconv.CICDPipelineResultTimeout
	case schedulerv1.Build_STATE_CANCELLED:
		return semconv.CICDPipelineResultCancellation
	default:
		return semconv.CICDPipelineResultError
	}
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
	m.duration.Record(ctx, now.Sub(since).Seconds(), metric.WithAttributes(pipeline(b.GetAction()), semconv.CICDPipelineRunStatePending))
}

// ended records how a build has ended.
func (m *metrics) ended(ctx context.Context, b *store.Build) {
	if b.HasJobs() { // they are counted
		return
	}
	took := 0.0
	if b.GetStartTime() != nil {
		took = b.GetEndTime().AsTime().Sub(b.GetStartTime().AsTime()).Seconds()
	}
	result := resultOf(b.GetState())
	m.duration.Record(ctx, took, metric.WithAttributes(pipeline(b.GetAction()), semconv.CICDPipelineRunStateExecuting, result))
	switch result {
	case semconv.CICDPipelineResultSuccess, semconv.CICDPipelineResultCancellation:
	case semconv.CICDPipelineResultTimeout:
		m.errors.Add(ctx, 1, metric.WithAttributes(pipeline(b.GetAction()), semconv.ErrorTypeKey.String("timed out")))
	default:
		m.errors.Add(ctx, 1, metric.WithAttributes(pipeline(b.GetAction()), semconv.ErrorTypeKey.String(wording.Value(b.GetReason()))))
	}
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
		m.atFault(ctx, engineAtFault, "start")
	}
	m.starts.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("engine", name), attribute.String("result", result)))
}

// atFault records that a part of Forge did not do what it was asked for.
func (m *metrics) atFault(ctx context.Context, component, what string) {
	m.failures.Add(ctx, 1, metric.WithAttributes(semconv.CICDSystemComponent(component), semconv.ErrorTypeKey.String(what)))
}
