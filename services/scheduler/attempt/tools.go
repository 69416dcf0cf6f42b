package attempt

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/traceparent"
)

// Bounds of the spans of tools.
const (
	maxToolSpans      = 2000      // of an attempt: a trace is shown with 5000
	maxToolBytes      = 128 << 10 // of one report
	maxToolAttributes = 48
	maxToolText       = 1100 // bytes of one
)

// storeSpans takes spans of a build's tools. A container may be anybody's: they join the
// trace of their own attempt, with ids of which nobody can guess those of others, and say
// nothing that would pass for Forge's word.
func (b *batch) storeSpans(ctx context.Context, told *schedulerv1.ToolSpans) error {
	size := 0
	for _, span := range told.GetSpans() {
		size += len(span.GetName()) + len(span.GetMessage()) + len(span.GetTool())
		for key, value := range span.GetAttributes() {
			size += len(key) + len(value)
		}
		if len(span.GetId()) != 8 || len(span.GetAttributes()) > maxToolAttributes {
			return fault.Newf(fault.Invalid, "span: its id has 8 bytes, and it has at most %d attributes", maxToolAttributes)
		}
	}
	if size > maxToolBytes {
		return fault.Newf(fault.Invalid, "spans: at most %d bytes in one report", maxToolBytes)
	}
	build, err := b.traceparent(ctx)
	if err != nil {
		return err
	}
	taken := told.GetSpans()[:min(int64(len(told.GetSpans())), max(maxToolSpans-b.attempt.Spans, 0))]
	b.attempt.Spans += int64(len(taken))
	left := min(max(int(told.GetLeftOut()), 0), maxToolSpans) + len(told.GetSpans()) - len(taken)
	foreign := min(max(int(told.GetForeign()), 0), maxToolSpans)
	run, earliest, latest := runSpan(build, b.attempt.Name()), b.attempt.Asked, b.tx.Now.Add(time.Minute)
	b.spans = append(b.spans, func() {
		b.service.metrics.countTools(ctx, len(taken), foreign, left)
		tracer := b.service.tools.tracer()
		if tracer == nil || run == "" {
			return
		}
		for _, told := range taken {
			span := toolSpan(run, told)
			span.by = tracer
			span.start = latestOf(earliest, earliestOf(latest, span.start))
			span.end = latestOf(span.start, earliestOf(latest, span.end))
			b.service.span(ctx, span)
		}
	})
	return nil
}

// toolTracer records spans of builds' tools; nil, or returning nil, where nobody keeps any.
type toolTracer func() trace.TracerProvider

// tracer is nil where nobody keeps spans.
func (of toolTracer) tracer() trace.Tracer {
	if of == nil {
		return nil
	}
	if provider := of(); provider != nil {
		return provider.Tracer("forge/scheduler")
	}
	return nil
}

// limit is how many spans a runner is asked for.
func (of toolTracer) limit() int32 {
	if of.tracer() == nil {
		return 0
	}
	return maxToolSpans
}

// toolSpan is a span of a tool as it joins the trace of its run. It is below a step of this
// run, or below another span of its tools. The ids of these are made of the run's, so that
// none of them is taken for a span of Forge or of another build, or stands below one.
func toolSpan(run string, of *schedulerv1.ToolSpan) over {
	ofTool := func(id []byte) string { return traceparent.Below(run, "tool "+hex.EncodeToString(id)) }
	joined := over{
		parent: ofTool(of.GetSpan()), own: ofTool(of.GetId()), name: short(of.GetName()), kind: kindOf(of.GetKind()),
		start: of.GetStartTime().AsTime(), end: of.GetEndTime().AsTime(),
	}
	if _, below := of.GetParent().(*schedulerv1.ToolSpan_Step); below {
		joined.parent = stepSpan(run, of.GetStep())
	}
	if of.GetFailed() {
		joined.failed = cmp.Or(short(of.GetMessage()), "failed")
	}
	for key, value := range of.GetAttributes() {
		if !slices.ContainsFunc(ofForge(), func(prefix string) bool { return strings.HasPrefix(strings.ToLower(key), prefix) }) {
			joined.attributes = append(joined.attributes, attribute.String(short(key), short(value)))
		}
	}
	if of.GetTool() != "" {
		joined.attributes = append(joined.attributes, attribute.String("forge.tool", short(of.GetTool())))
	}
	return joined
}

// ofForge are beginnings of attributes by which Forge says of which build a span is, and
// who has made it. A tool has no say in that.
func ofForge() []string { return []string{"cicd.", "vcs.", "forge.", "service.", "otel."} }

// kindOf is the kind of a span.
func kindOf(kind schedulerv1.ToolSpan_SpanKind) trace.SpanKind {
	return map[schedulerv1.ToolSpan_SpanKind]trace.SpanKind{
		schedulerv1.ToolSpan_SPAN_KIND_SERVER:   trace.SpanKindServer,
		schedulerv1.ToolSpan_SPAN_KIND_CLIENT:   trace.SpanKindClient,
		schedulerv1.ToolSpan_SPAN_KIND_PRODUCER: trace.SpanKindProducer,
		schedulerv1.ToolSpan_SPAN_KIND_CONSUMER: trace.SpanKindConsumer,
	}[kind]
}

// short cuts a text that forgexec should have cut.
func short(text string) string {
	if len(text) <= maxToolText {
		return text
	}
	return strings.ToValidUTF8(text[:maxToolText], "") + "…"
}

func earliestOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
