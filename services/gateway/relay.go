package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/wording"
)

const (
	relayWorkers = 64
	relayBatch   = 16
	// Those outside may be small.
	outsideWorkers = 8
	maxRelayed     = 32 << 20 // bytes of payloads at once, to one receiver
	tryFor         = 30 * time.Second
	settleWithin   = 2 * time.Second

	firstPause = time.Second
	mostPause  = time.Minute
	// Half of mostPause is the shortest a pause can be then: at least 24 hours.
	mostTries = 3000

	// Pauses for those outside grow further: nobody waits in front of them.
	mostPauseOutside = 5 * time.Minute
)

// decide asks a receiver.
type decide func(context.Context, letter) (*eventv1.Decision, error)

// relay brings deliveries to one receiver. It has a loop of its own, so that a
// receiver that hangs delays nobody else.
type relay struct {
	receiver string
	decide   decide
	bounds   tryBounds
	store    *store
	settler  *batcher[settlement]
	metrics  *metrics
	deps     Deps
	tracer   trace.Tracer
	memory   *semaphore.Weighted
	loop     *due.Loop[forward]
}

func newRelay(receiver string, store *store, settler *batcher[settlement], counted *metrics, deps Deps) (*relay, error) {
	decide, err := decider(receiver, deps.Receivers)
	if err != nil {
		return nil, err
	}
	r := &relay{
		receiver: receiver, decide: decide, bounds: boundsOfRooms(),
		store: store, settler: settler, metrics: counted, deps: deps,
	}
	r.prepare(relayWorkers)
	return r, nil
}

// newRelayOutside relays to a receiver outside.
func newRelayOutside(o *outsider, store *store, settler *batcher[settlement], counted *metrics, deps Deps) *relay {
	r := &relay{
		receiver: o.Name, decide: o.decide, bounds: tryBounds{mostPause: mostPauseOutside, tryFor: deps.Outside.TryFor},
		store: store, settler: settler, metrics: counted, deps: deps,
	}
	r.prepare(outsideWorkers)
	return r
}

// prepare makes the loop.
func (r *relay) prepare(workers int) {
	receiver, store, deps := r.receiver, r.store, r.deps
	r.tracer, r.memory = deps.Tracer.Tracer("forge/gateway"), semaphore.NewWeighted(maxRelayed)
	r.loop = &due.Loop[forward]{
		Name:    "relay to " + receiver,
		Workers: workers,
		Batch:   min(relayBatch, workers),
		Log:     deps.Log,
		Claim: func(ctx context.Context, limit int) ([]forward, error) {
			now := deps.Now()
			return store.claim(ctx, receiver, limit, now, now.Add(due.Lease))
		},
		Renew: func(ctx context.Context, f forward) error { return store.renew(ctx, f, deps.Now().Add(due.Lease)) },
		Work:  r.work,
	}
}

func decider(receiver string, conns map[string]grpc.ClientConnInterface) (decide, error) {
	conn := conns[receiver]
	if conn == nil && receiver != self {
		return nil, fmt.Errorf("gateway: no connection to %s", receiver)
	}
	switch receiver {
	case self:
		return decideHere, nil
	case "config":
		client := configv1.NewEventServiceClient(conn)
		return func(ctx context.Context, l letter) (*eventv1.Decision, error) {
			resp, err := client.ReceiveEvent(ctx, &configv1.ReceiveEventRequest{Event: l.event})
			return resp.GetDecision(), err
		}, nil
	case "scheduler":
		client := schedulerv1.NewEventServiceClient(conn)
		return func(ctx context.Context, l letter) (*eventv1.Decision, error) {
			resp, err := client.ReceiveEvent(ctx, &schedulerv1.ReceiveEventRequest{Event: l.event})
			return resp.GetDecision(), err
		}, nil
	case "reporter":
		client := reporterv1.NewEventServiceClient(conn)
		return func(ctx context.Context, l letter) (*eventv1.Decision, error) {
			resp, err := client.ReceiveEvent(ctx, &reporterv1.ReceiveEventRequest{Event: l.event})
			return resp.GetDecision(), err
		}, nil
	default:
		return nil, fmt.Errorf("gateway: a route leads to %s, which is no room", receiver)
	}
}

// decideHere decides on what goes to no room.
func decideHere(_ context.Context, l letter) (*eventv1.Decision, error) {
	e := l.event
	if ping := e.GetPing(); ping != nil {
		return wording.Noted("%s", strings.TrimSuffix("the webhook works: "+ping.GetZen(), ": ")), nil
	}
	return wording.Ignored(eventv1.Reason_REASON_EVENT_IGNORED, "no receiver for event %s", e.GetName()), nil
}

// work makes one try and writes down how it ended.
func (r *relay) work(ctx context.Context, f forward) {
	d, err := r.store.byID(ctx, f.delivery)
	if err != nil {
		r.deps.Log.ErrorContext(ctx, "reading a delivery failed; it is forwarded when its lease is over", "receiver", r.receiver, "error", err)
		return
	}
	ctx, span := r.tracer.Start(telemetry.WithTraceparent(ctx, d.traceparent), "relay "+d.event+" to "+r.receiver,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("forge.delivery", d.guid), attribute.Int("forge.attempt", f.attempts)))
	defer span.End()

	if f.since = d.received; f.reopened.After(d.received) {
		f.since = f.reopened
	}
	decision, known, err := r.try(ctx, d)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	settled := r.outcome(f, decision, err, ctx.Err() != nil)
	r.logOutcome(ctx, d, settled)

	// A stop ends ctx; how the try ended is written down all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	if err := r.settler.do(ctx, settlement{settled, known}); err != nil {
		r.deps.Log.ErrorContext(ctx, "storing a decision failed; the receiver is asked again when the lease is over",
			"delivery", d.guid, "receiver", r.receiver, "error", err)
		return
	}
	r.metrics.settled(ctx, d, settled)
}

// try decodes the payload and asks the receiver. A payload that does not fit its
// kind of event is decided here, and so is a request that the receiver calls
// invalid: no later try would be another one.
func (r *relay) try(ctx context.Context, d delivery) (*eventv1.Decision, summary, error) {
	// Decoded, a payload takes several times its size; those of usual size never
	// wait for each other.
	weight := min(d.size, maxRelayed)
	if err := r.memory.Acquire(ctx, weight); err != nil {
		return nil, summary{}, err
	}
	defer r.memory.Release(weight)
	payload, err := r.store.payload(ctx, d.id)
	if err != nil {
		return nil, summary{}, err
	}
	event, err := routeOf(d.event).decode(payload)
	if err != nil {
		return malformed(err), summary{}, nil
	}
	event.DeliveryId, event.Name, event.ReceiveTime = d.guid, d.event, timestamppb.New(d.received)
	known := summarize(event)

	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	decision, err := r.decide(ctx, letter{d, payload, event})
	switch {
	case fault.Is(err, fault.Invalid):
		return malformed(err), known, nil
	case err != nil:
		return nil, known, err
	case decision.GetReason() == eventv1.Reason_REASON_UNSPECIFIED:
		return nil, known, fmt.Errorf("%s answered without a decision", r.receiver)
	}
	return decision, known, nil
}

func malformed(err error) *eventv1.Decision {
	return &eventv1.Decision{Reason: eventv1.Reason_REASON_MALFORMED, Text: storable("malformed: " + err.Error())}
}

func summarize(e *eventv1.Event) summary {
	f := summary{action: e.GetAction(), installationID: e.GetInstallationId(), pull: pullStateOf(e)}
	f.pullRequest, f.sha = subjectOf(e)
	if repo := e.GetRepository(); repo != nil {
		f.repository = wording.FullName(repo)
	}
	return f
}

// outcome is the forward after a try: decided, due again, or kept for a person.
func (r *relay) outcome(f forward, decision *eventv1.Decision, err error, stopped bool) forward {
	now := r.deps.Now()
	switch {
	case err == nil:
		f.state, f.decision, f.decided, f.err = decided, decision, now, ""
	case stopped: // our doing: the try does not count
		f.due, f.attempts, f.err = now, f.attempts-1, "Forge was stopped meanwhile"
	case r.bounds.over(f, now):
		f.state, f.decided, f.err = kept, now, err.Error()
		f.decision = &eventv1.Decision{
			Reason: eventv1.Reason_REASON_GAVE_UP,
			Text:   storable(fmt.Sprintf("gave up after %d tries: %v", f.attempts, err)),
		}
	default:
		pause := due.Backoff(f.attempts, firstPause, r.bounds.mostPause, r.deps.Random)
		if told, ok := errors.AsType[unsaid](err); ok {
			pause = max(pause, told.answer.Later)
		}
		f.due, f.err = now.Add(pause), err.Error()
	}
	return f
}

func (r *relay) logOutcome(ctx context.Context, d delivery, f forward) {
	level, text := slog.LevelInfo, "delivery decided"
	switch f.state {
	case pending:
		level, text = slog.LevelWarn, "forwarding a delivery failed; it is tried again"
	case kept:
		level, text = slog.LevelError, "forwarding a delivery failed; no try is left, it is kept for a person"
	}
	r.deps.Log.LogAttrs(ctx, level, text, //nolint:sloglint // one of the three texts above
		slog.String("delivery", d.guid), slog.String("event", d.event), slog.String("receiver", f.receiver),
		slog.Int("attempt", f.attempts), slog.String("decision", f.decision.GetText()), slog.String("error", f.err))
}
