package kittest

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const actAsTool = "TEST_ACT_AS_TOOL"

// Tool is a command by which this test's binary, where its TestMain calls MaybeTool, runs as
// a tool that sends a span "compile" with OpenTelemetry's own SDK, and others named below
// that one. It knows what its environment says, and no more.
func Tool(below ...string) string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return actAsTool + "='" + strings.Join(append([]string{"compile"}, below...), ",") + "' '" + self + "'"
}

// MaybeTool is that tool where this process is meant to be one. It does not return then.
func MaybeTool() {
	names := os.Getenv(actAsTool)
	if names == "" {
		return
	}
	if err := actTool(context.Background(), strings.Split(names, ",")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func actTool(ctx context.Context, names []string) error {
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return err
	}
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "scheduler")), resource.WithFromEnv())
	if err != nil {
		return err
	}
	var refused error
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(complaining{exporter, &refused}), sdktrace.WithResource(res))
	tracer := provider.Tracer("tool")
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": os.Getenv("TRACEPARENT")})
	ctx, outer := tracer.Start(ctx, names[0])
	for n, name := range names[1:] {
		_, inner := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.Int("number", n), attribute.String("token", os.Getenv("TOKEN")), attribute.String("cicd.pipeline.run.id", "another"),
		))
		if name == "broken" {
			inner.SetStatus(codes.Error, "it is broken: "+os.Getenv("TOKEN"))
		}
		inner.End()
	}
	outer.End()
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	return refused
}

// complaining keeps what the SDK would only print.
type complaining struct {
	sdktrace.SpanExporter
	refused *error
}

func (c complaining) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		*c.refused = err
	}
	return err
}
