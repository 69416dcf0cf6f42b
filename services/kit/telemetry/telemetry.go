// Package telemetry gives a process its log, traces and metrics, and every line
// of the log its trace. Nothing leaves the process unless the standard OTEL_*
// variables ask for it; trace ids exist either way, and so do metrics for who asks.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Config says who reports, and where the log goes.
type Config struct {
	Service, Version string
	Debug            bool      // log at debug level
	Out              io.Writer // nil: standard error; text on a terminal, else JSON
}

// Telemetry is what a process reports with. Its providers are passed on by hand;
// OpenTelemetry's globals stay unset.
type Telemetry struct {
	Log    *slog.Logger
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// Metrics answers Prometheus with what Meter has measured, as text or as OpenMetrics.
	Metrics http.Handler

	spans *sdktrace.TracerProvider // nil: Tracer is another's
	tools *sdktrace.TracerProvider
	kept  bool // somebody keeps spans
}

// keepWithin is how long a span waits until it is handed to who keeps it here.
const keepWithin = time.Second

// Keep hands the spans that end from now on to an exporter of this process, too.
func (t *Telemetry) Keep(exporter sdktrace.SpanExporter) {
	if t.spans != nil {
		t.keep(sdktrace.NewBatchSpanProcessor(exporter, sdktrace.WithBatchTimeout(keepWithin)))
	}
}

func (t *Telemetry) keep(processor sdktrace.SpanProcessor) {
	t.spans.RegisterSpanProcessor(processor)
	t.tools.RegisterSpanProcessor(processor)
	t.kept = true
}

// ToolService is whose spans those are that tools of builds have made.
const ToolService = "build"

// Tools records spans that tools of builds have made, where this process's own go, and as
// those of ToolService; nil where these go nowhere.
func (t *Telemetry) Tools() trace.TracerProvider {
	if !t.kept {
		return nil
	}
	return t.tools
}

// Start reads OTEL_* and returns the telemetry and the function that sends what
// is left and stops it. Traces are exported when OTEL_TRACES_EXPORTER or an OTLP
// endpoint is named, metrics when OTEL_METRICS_EXPORTER is; Prometheus may ask for
// these in any case.
func Start(ctx context.Context, cfg Config) (*Telemetry, func(context.Context) error, error) {
	log := newLog(cfg)
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(cfg.Service), semconv.ServiceVersion(cfg.Version)),
		resource.WithFromEnv()) // last, so that OTEL_SERVICE_NAME wins
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry: OTEL_TRACES_EXPORTER %q: %w", os.Getenv("OTEL_TRACES_EXPORTER"), err)
	}
	// Without an exporter spans are sampled all the same: another process may
	// export its part of the trace, and so may a build by its TRACEPARENT.
	tracer := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithIDGenerator(ids{}))
	tools := sdktrace.NewTracerProvider(sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(ToolService))), sdktrace.WithIDGenerator(ids{}))
	t := &Telemetry{Log: log, Tracer: tracer, spans: tracer, tools: tools}
	if exporter != nil {
		t.keep(sdktrace.NewBatchSpanProcessor(spanExporter{exporter, log}))
	}
	meter, metrics, err := newMeter(ctx, res)
	if err != nil {
		return nil, nil, errors.Join(
			fmt.Errorf("telemetry: OTEL_METRICS_EXPORTER %q: %w", os.Getenv("OTEL_METRICS_EXPORTER"), err), tracer.Shutdown(ctx))
	}
	stop := func(ctx context.Context) error {
		return errors.Join(tracer.Shutdown(ctx), meter.Shutdown(ctx))
	}
	t.Meter, t.Metrics = meter, metrics
	return t, stop, nil
}

// newExporter is where the environment has spans be sent; nil: nowhere.
func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if !wanted("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
		return nil, nil //nolint:nilnil // none is no error
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil || autoexport.IsNoneSpanExporter(exporter) {
		return nil, err
	}
	return exporter, nil
}

// wanted reports whether one of the variables is set. The exporters' own default
// is to send to localhost, which nobody asked for.
func wanted(variables ...string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	for _, name := range variables {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// spanExporter logs what could not be exported; the SDK would hand it to a
// global handler that prints past the log.
type spanExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

func (e spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.WarnContext(ctx, "spans lost", "count", len(spans), "error", err)
	}
	return nil
}

// Handler gives each request a span, as a child of the caller's where the request
// brings a W3C traceparent. It is named by the method and, once that is known, by
// the pattern that the request has matched: a path may hold what is secret.
func Handler(h http.Handler, t *Telemetry) http.Handler {
	return otelhttp.NewHandler(h, "",
		otelhttp.WithTracerProvider(t.Tracer),
		otelhttp.WithMeterProvider(t.Meter),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			_, path, found := strings.Cut(r.Pattern, " ")
			if !found {
				path = r.Pattern
			}
			return strings.TrimSpace(r.Method + " " + path)
		}))
}
