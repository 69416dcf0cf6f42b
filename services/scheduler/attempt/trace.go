package attempt

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forge-ci/forge/services/kit/telemetry"
)

// span records what is over already, under the span that a row remembers.
func (s *Service) span(ctx context.Context, traceparent, name string, start, end time.Time, attributes ...attribute.KeyValue) {
	_, span := s.tracer.Start(telemetry.WithTraceparent(ctx, traceparent), name,
		trace.WithTimestamp(start), trace.WithAttributes(attributes...))
	span.End(trace.WithTimestamp(end))
}
