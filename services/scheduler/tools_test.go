package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/traceparent"
)

// toolSpans are a report of spans.
func toolSpans(sequence int64, spans ...*schedulerv1.ToolSpan) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_Spans{Spans: &schedulerv1.ToolSpans{Spans: spans}}
	return r
}

func toolSpan(id byte, name string) *schedulerv1.ToolSpan {
	return &schedulerv1.ToolSpan{Id: []byte{0, 0, 0, 0, 0, 0, 0, id}, Parent: &schedulerv1.ToolSpan_Step{Step: 1}, Name: name}
}

// A tool's spans stand below its step, in the trace of its build; with whatever it says of
// itself it is no part of Forge.
func TestSpansOfToolsJoinTheTraceOfTheirBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		if u.plan.GetSpanLimit() != 2000 {
			t.Errorf("the runner is asked for %d spans", u.plan.GetSpanLimit())
		}
		run := u.plan.GetEnvironment()["TRACEPARENT"]
		outer, inner := toolSpan(1, "compile"), toolSpan(2, "link")
		inner.Parent, inner.Kind = &schedulerv1.ToolSpan_Span{Span: outer.GetId()}, schedulerv1.ToolSpan_SPAN_KIND_CLIENT
		inner.Failed, inner.Message, inner.Tool = true, "no room", "scheduler"
		inner.StartTime, inner.EndTime = timestamppb.New(time.Unix(0, 0)), timestamppb.New(r.clock.Now().Add(1000*time.Hour))
		inner.Attributes = map[string]string{
			"file": "a.o", "service.name": "gateway", "cicd.pipeline.run.id": "another", "VCS.owner.name": "evil", "forge.tool": "evil", strings.Repeat("k", 5000): strings.Repeat("v", 5000),
		}
		// The attack: the ids of the run, of its step, and of a step to come are known in the container.
		posing := toolSpan(0, "posing")
		posing.Id = idOf(traceparent.Below(run, "step 2"))
		stray := toolSpan(4, "stray")
		stray.Parent = &schedulerv1.ToolSpan_Span{Span: idOf(run)}
		u.send(began(1, 1), toolSpans(2, outer, inner, posing, stray), exited(3, 1, 0), began(4, 2), exited(5, 2, 0), over(6, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(id, schedulerv1.Build_STATE_PASSED)

		found := recorded(r, "compile", "link", "posing", "stray", "step vet", "step unit tests", "RUN test")
		for name, span := range found {
			if span.SpanContext().TraceID().String() != r.build(id).GetTraceId() {
				t.Errorf("%s is in the trace %s", name, span.SpanContext().TraceID())
			}
		}
		if got, want := found["compile"].Parent().SpanID(), found["step vet"].SpanContext().SpanID(); got != want {
			t.Errorf("compile is below %s, want %s", got, want)
		}
		link := found["link"]
		if got, want := link.Parent().SpanID(), found["compile"].SpanContext().SpanID(); got != want {
			t.Errorf("link is below %s, want %s", got, want)
		}
		if link.SpanKind() != trace.SpanKindClient || link.Status().Description != "no room" {
			t.Errorf("link is %v, %v", link.SpanKind(), link.Status())
		}
		if link.StartTime().Before(r.clock.Now().Add(-time.Hour)) || link.EndTime().After(r.clock.Now().Add(time.Hour)) {
			t.Errorf("link lasts from %v to %v", link.StartTime(), link.EndTime())
		}
		attributes := map[string]string{}
		for _, a := range link.Attributes() {
			attributes[string(a.Key)] = a.Value.AsString()
			if len(a.Key)+len(a.Value.AsString()) > 3000 {
				t.Errorf("an attribute of %d and %d bytes", len(a.Key), len(a.Value.AsString()))
			}
		}
		if len(attributes) != 3 || attributes["file"] != "a.o" || attributes["forge.tool"] != "scheduler" {
			t.Errorf("link has %v", slices.Collect(maps.Keys(attributes)))
		}
		taken := map[trace.SpanID]string{}
		for _, name := range []string{"compile", "link", "posing", "stray", "step vet", "step unit tests", "RUN test"} {
			if other := taken[found[name].SpanContext().SpanID()]; other != "" {
				t.Errorf("%s has the id of %s", name, other)
			}
			taken[found[name].SpanContext().SpanID()] = name
		}
		if below := taken[found["stray"].Parent().SpanID()]; below != "" {
			t.Errorf("what names a span of another as its parent is below %q", below)
		}
	})
}

// idOf is the id of the span that a traceparent names, in bytes.
func idOf(tp string) []byte {
	id, err := trace.SpanIDFromHex(traceparent.SpanID(tp))
	if err != nil {
		panic(err)
	}
	return id[:]
}

// recorded waits for spans, and returns them by their names.
func recorded(r *rig, names ...string) map[string]sdktrace.ReadOnlySpan {
	r.t.Helper()
	found := map[string]sdktrace.ReadOnlySpan{}
	kittest.Eventually(r.t, patience, func() error { // they are recorded once what they tell of is stored
		for _, span := range r.spans.Ended() {
			if slices.Contains(names, span.Name()) {
				found[span.Name()] = span
			}
		}
		if len(found) != len(names) {
			return fmt.Errorf("of %q there are %d", names, len(found))
		}
		return nil
	})
	return found
}

// However often its runner begins anew, an attempt has no more spans than there is room for.
func TestAnAttemptHasNoMoreSpansThanThereIsRoomFor(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		u := r.attach(token)
		u.send(began(1, 1))
		u.acked(1)
		sequence := int64(1)
		for range 5 {
			for range 5 {
				sequence++
				many := make([]*schedulerv1.ToolSpan, 100)
				for n := range many {
					many[n] = toolSpan(byte(n), "many")
				}
				u.send(toolSpans(sequence, many...))
			}
			u.acked(sequence)
			u.leave()
			u = r.reattach(token)
		}
		kept := 0
		for _, span := range r.spans.Ended() {
			if span.Name() == "many" {
				kept++
			}
		}
		if kept != 2000 {
			t.Errorf("%d spans are kept", kept)
		}
	})
}

func TestSpansThatNoRunnerSendsAreRefused(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for name, span := range map[string]*schedulerv1.ToolSpan{
			"a short id": {Id: []byte{1}},
			"too large":  {Id: make([]byte, 8), Message: strings.Repeat("x", 200_000)},
		} {
			id := r.built(opened(1, fmt.Sprintf("%040x", len(name))))
			u := r.attach(r.spec(id, 1).Runner.Token)
			u.send(began(1, 1), toolSpans(2, span))
			if err := u.refused(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Where nobody keeps spans, no runner is asked for any.
func TestNobodyIsAskedForSpansThatNobodyKeeps(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.stop()
		r.deps.ToolTracer = func() trace.TracerProvider { return nil }
		r.start()
		u := r.attach(r.spec(r.built(opened(1, "aaa")), 1).Runner.Token)
		if limit := u.plan.GetSpanLimit(); limit != 0 {
			t.Errorf("the runner is asked for %d spans", limit)
		}
		u.send(began(1, 1), toolSpans(2, toolSpan(1, "compile")), exited(3, 1, 0))
		u.acked(3)
	})
}
