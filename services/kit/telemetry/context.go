package telemetry

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const traceparent = "traceparent"

// Traceparent returns the W3C traceparent of the span in ctx, "" when there is
// none. It is what a row keeps so that later work joins its trace.
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparent]
}

// WithTraceparent makes the spans started in the returned context children of
// tp. What is no traceparent changes nothing.
func WithTraceparent(ctx context.Context, tp string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: tp})
}

// TraceID returns the trace id in ctx as 32 hex digits, "" when there is none.
func TraceID(ctx context.Context) string {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	return ""
}

type spanIDKey struct{}

// WithSpan has the span that is started in the returned context be the one that tp names,
// instead of one with an id by chance. It is for a span that is over: whoever knew its
// name has made children of it already. No other is started in that context.
func WithSpan(ctx context.Context, tp string) context.Context {
	named := trace.SpanContextFromContext(WithTraceparent(context.Background(), tp))
	if !named.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, spanIDKey{}, named.SpanID())
}

// IDs gives spans the ids that WithSpan names, and others ids by chance.
func IDs() sdktrace.IDGenerator { return ids{} }

// ids gives ids by chance, but to spans that have theirs.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never returns an error
	return id, ids{}.NewSpanID(ctx, id)
}

func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if named, ok := ctx.Value(spanIDKey{}).(trace.SpanID); ok {
		return named
	}
	var id trace.SpanID
	_, _ = rand.Read(id[:]) // never returns an error
	return id
}
