package attempt

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/kit/traceparent"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// over is a span of something that is over already.
type over struct {
	parent, own string // traceparents; own "": an id by chance
	name        string
	kind        trace.SpanKind
	by          trace.Tracer // nil: the scheduler's own
	start, end  time.Time
	failed      string // why it has; "": it has not
	attributes  []attribute.KeyValue
	waits       []waited
}

// span records what is over already, under the span that a row remembers.
func (s *Service) span(ctx context.Context, of over) {
	ctx = telemetry.WithSpan(telemetry.WithTraceparent(ctx, of.parent), of.own)
	by := s.tracer
	if of.by != nil {
		by = of.by
	}
	_, span := by.Start(ctx, of.name, trace.WithTimestamp(of.start), trace.WithSpanKind(of.kind), trace.WithAttributes(of.attributes...))
	for _, one := range of.waits {
		one.event(span)
	}
	if of.failed != "" {
		span.SetStatus(codes.Error, of.failed)
	}
	span.End(trace.WithTimestamp(of.end))
}

// runSpan is the traceparent of the span of an attempt's commands.
func runSpan(build, attempt string) string { return traceparent.Below(build, "run "+attempt) }

// stepSpan is the traceparent of the span of a step, below that of runSpan. forgexec makes
// the same of what it is sent, for the commands of the step.
func stepSpan(run string, number int32) string {
	return traceparent.Below(run, "step "+strconv.Itoa(int(number)))
}

// baggage is what the tools of a build may tell on. They may tell it to anybody, so it is
// what stands in the address of the build's page, and no more.
func baggage(b *store.Build) string {
	return string(semconv.CICDPipelineNameKey) + "=" + pipeline(b.GetAction()).Value.String() + "," + string(semconv.CICDPipelineRunIDKey) + "=" + b.GetId()
}

// ran records the span of the commands of a build that has ended; of one that had none,
// what it has waited for.
func ran(ctx context.Context, s *Service, b *store.Build) {
	if b.HasJobs() || b.GetStartTime() == nil {
		all := b.GetWaits()
		if b.GetAttempt() > 0 { // the others are told of
			all = b.WaitsUntil(b.GetEndTime().AsTime())
		}
		queueSpan(ctx, s, b, time.Time{}, all)
		return
	}
	result := resultOf(b.GetState())
	of := over{
		parent: b.Traceparent, own: runSpan(b.Traceparent, store.AttemptName(b.GetId(), b.GetAttempt())),
		name: "RUN " + pipeline(b.GetAction()).Value.String(), kind: trace.SpanKindServer,
		start: b.GetStartTime().AsTime(), end: b.GetEndTime().AsTime(), attributes: append(attributesOf(b), result),
	}
	for _, one := range b.GetWaits() { // those before are told of by other spans
		if one.GetReason() == schedulerv1.Build_REASON_SOURCE && one.GetEndTime() != nil && !one.GetStartTime().AsTime().Before(b.GetContainerTime().AsTime()) {
			of.waits = append(of.waits, waited{reason: one.GetReason(), start: one.GetStartTime().AsTime(), end: one.GetEndTime().AsTime()})
		}
	}
	if result == semconv.CICDPipelineResultFailure || result == semconv.CICDPipelineResultError || result == semconv.CICDPipelineResultTimeout {
		of.failed = b.GetMessage()
		if reason := b.GetReason(); reason != 0 {
			of.attributes = append(of.attributes, semconv.ErrorTypeKey.String(wording.Value(reason)))
		}
	}
	s.span(ctx, of)
}

// attributesOf says of which run a span is, in the words of the conventions.
func attributesOf(b *store.Build) []attribute.KeyValue {
	all := []attribute.KeyValue{
		semconv.CICDPipelineActionNameRun, pipeline(b.GetAction()), semconv.CICDPipelineRunID(b.GetId()),
		semconv.VCSProviderNameGithub, semconv.VCSOwnerName(b.GetRepository().GetOwner()), semconv.VCSRepositoryName(b.GetRepository().GetName()),
		semconv.VCSRefHeadRevision(b.GetSha()),
	}
	for _, known := range []attribute.KeyValue{
		semconv.CICDPipelineRunURLFull(b.GetUrl()), semconv.VCSRefHeadName(b.GetBranch()), semconv.VCSRefBaseName(b.GetBaseRef()),
	} {
		if known.Value.String() != "" {
			all = append(all, known)
		}
	}
	if b.GetPullRequest() != 0 {
		all = append(all, semconv.VCSChangeID(strconv.Itoa(int(b.GetPullRequest()))))
	}
	return all
}
