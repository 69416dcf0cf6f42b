package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/kit/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const remote = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// start runs the telemetry of a service with only these variables of OTEL_*.
// stop sends what is left, as the end of the test does.
func start(t *testing.T, log io.Writer, otel map[string]string) (tel *telemetry.Telemetry, stop func()) {
	t.Helper()
	for _, name := range []string{
		"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER",
	} {
		t.Setenv(name, otel[name])
	}
	tel, shutdown, err := telemetry.Start(t.Context(), telemetry.Config{Service: "gateway", Version: "v1.2.3", Out: log})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := shutdown(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Cleanup(stop)
	return tel, stop
}

// collector is an OTLP collector that answers with status and keeps what came.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	paths  []string
	traces collectorv1.ExportTraceServiceRequest
}

func newCollector(t *testing.T, status int) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paths = append(c.paths, r.URL.Path)
		if body, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		} else if r.URL.Path == "/v1/traces" {
			if err := proto.Unmarshal(body, &c.traces); err != nil {
				t.Error(err)
			}
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) saw(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.paths, path)
}

// work makes a span and, through the HTTP edge, a metric.
func work(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	answer := telemetry.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), tel)
	answer.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/listen", nil))
}

func TestNothingIsSentUnlessAskedFor(t *testing.T) {
	for name, otel := range map[string]map[string]string{
		"nothing":  {},
		"none":     {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector"},
		"disabled": {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector", "OTEL_METRICS_EXPORTER": "otlp"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t, http.StatusOK)
			if otel["OTEL_EXPORTER_OTLP_ENDPOINT"] != "" {
				otel["OTEL_EXPORTER_OTLP_ENDPOINT"] = c.URL
			}
			tel, stop := start(t, io.Discard, otel)
			work(t, tel)
			ctx, span := tel.Tracer.Tracer("test").Start(t.Context(), "delivery")
			if len(telemetry.TraceID(ctx)) != 32 || !span.SpanContext().IsSampled() {
				t.Errorf("the span is %s", telemetry.Traceparent(ctx))
			}
			span.End()
			stop()
			if len(c.paths) > 0 {
				t.Errorf("sent to %q", c.paths)
			}
		})
	}
}

func TestAnEndpointTurnsTracesOnAndNotMetrics(t *testing.T) {
	c := newCollector(t, http.StatusOK)
	tel, stop := start(t, io.Discard, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_RESOURCE_ATTRIBUTES": "team=ci"})
	work(t, tel)
	stop()
	if len(c.traces.GetResourceSpans()) != 1 || c.saw("/v1/metrics") {
		t.Fatalf("sent to %q: %v", c.paths, &c.traces)
	}
	sent := c.traces.GetResourceSpans()[0]
	if span := sent.GetScopeSpans()[0].GetSpans()[0]; span.GetName() != "POST" {
		t.Errorf("span %q", span.GetName())
	}
	resource := map[string]string{}
	for _, attr := range sent.GetResource().GetAttributes() {
		resource[attr.GetKey()] = attr.GetValue().GetStringValue()
	}
	for key, want := range map[string]string{"service.name": "gateway", "service.version": "v1.2.3", "team": "ci"} {
		if resource[key] != want {
			t.Errorf("%s is %q, want %q", key, resource[key], want)
		}
	}
}

func TestMetricsAreSentWhenTheirExporterIsNamed(t *testing.T) {
	c := newCollector(t, http.StatusOK)
	tel, stop := start(t, io.Discard, map[string]string{
		"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": c.URL,
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
	})
	work(t, tel)
	stop()
	if !c.saw("/v1/metrics") || c.saw("/v1/traces") {
		t.Errorf("sent to %q", c.paths)
	}
}

func TestUnknownExporterStopsTheStart(t *testing.T) {
	for _, name := range []string{"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "zipkon")
			_, _, err := telemetry.Start(t.Context(), telemetry.Config{Service: "gateway", Out: io.Discard})
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "zipkon") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLostSpansAreLogged(t *testing.T) {
	c := newCollector(t, http.StatusBadRequest)
	var log bytes.Buffer
	tel, stop := start(t, &log, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL})
	work(t, tel)
	stop()
	if line := log.String(); !strings.Contains(line, `"msg":"spans lost"`) || !strings.Contains(line, `"count":1`) {
		t.Errorf("log: %s", line)
	}
}

func TestLogLinesCarryTheirTrace(t *testing.T) {
	var log bytes.Buffer
	tel, _ := start(t, &log, nil)
	ctx, span := tel.Tracer.Tracer("test").Start(t.Context(), "delivery")
	defer span.End()
	for _, l := range []*slog.Logger{tel.Log, tel.Log.With("room", "gateway")} {
		log.Reset()
		l.InfoContext(ctx, "stored", "delivery", "d1")
		var line map[string]string
		if err := json.Unmarshal(log.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, log.String())
		}
		for key, want := range map[string]string{
			"msg": "stored", "service": "gateway", "delivery": "d1",
			"trace_id": telemetry.TraceID(ctx), "span_id": span.SpanContext().SpanID().String(),
		} {
			if line[key] != want {
				t.Errorf("%s is %q, want %q", key, line[key], want)
			}
		}
	}
	log.Reset()
	tel.Log.Info("started")
	if strings.Contains(log.String(), "trace_id") {
		t.Errorf("a trace id from nowhere: %s", log.String())
	}
}

func TestDebugIsLoggedWhenAskedFor(t *testing.T) {
	for _, debug := range []bool{false, true} {
		var log bytes.Buffer
		tel, stop, err := telemetry.Start(t.Context(), telemetry.Config{Service: "gateway", Debug: debug, Out: &log})
		if err != nil {
			t.Fatal(err)
		}
		tel.Log.Debug("claimed")
		if got := log.Len() > 0; got != debug {
			t.Errorf("debug %t: %q", debug, log.String())
		}
		if err := stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestDurationsAreLoggedForPeople(t *testing.T) {
	var log bytes.Buffer
	tel, _ := start(t, &log, nil)
	tel.Log.Info("trying again", "in", 1500*time.Millisecond)
	if !strings.Contains(log.String(), `"in":"1.5s"`) {
		t.Errorf("logged %s", log.String())
	}
}

func TestTraceparentIsKeptForLater(t *testing.T) {
	tel, _ := start(t, io.Discard, nil)
	ctx, span := tel.Tracer.Tracer("test").Start(t.Context(), "delivery")
	kept := telemetry.Traceparent(ctx)
	span.End()

	later, relay := tel.Tracer.Tracer("test").Start(telemetry.WithTraceparent(t.Context(), kept), "relay")
	defer relay.End()
	if telemetry.TraceID(later) != telemetry.TraceID(ctx) {
		t.Errorf("another trace: %s, was %s", telemetry.Traceparent(later), kept)
	}
	if telemetry.Traceparent(later) == kept {
		t.Error("the later span is the earlier one")
	}
}

func TestWithTraceparentTakesAnyText(t *testing.T) {
	for tp, want := range map[string]string{
		remote: remote,
		"":     "",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331":    "", // cut short
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "", // the id that means none
		"'; DROP TABLE deliveries":                                "",
	} {
		ctx := telemetry.WithTraceparent(t.Context(), tp)
		if got := telemetry.Traceparent(ctx); got != want {
			t.Errorf("%q became %q", tp, got)
		}
		if got := telemetry.TraceID(ctx); got != "" && !strings.Contains(want, got) {
			t.Errorf("trace id %q of %q", got, tp)
		}
	}
	parent := telemetry.WithTraceparent(t.Context(), remote)
	if got := telemetry.Traceparent(telemetry.WithTraceparent(parent, "nonsense")); got != remote {
		t.Errorf("nonsense replaced the trace by %q", got)
	}
}

func TestRequestJoinsTheCallersTrace(t *testing.T) {
	tel, _ := start(t, io.Discard, nil)
	var seen context.Context
	edge := telemetry.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = r.Context() //nolint:fatcontext // one request at a time, looked at afterwards
	}), tel)

	request := httptest.NewRequest(http.MethodPost, "/v1/listen", nil)
	request.Header.Set("Traceparent", remote)
	edge.ServeHTTP(httptest.NewRecorder(), request)
	if got := telemetry.TraceID(seen); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("trace %q", got)
	}
	if trace.SpanContextFromContext(seen).SpanID().String() == "b7ad6b7169203331" {
		t.Error("the request has no span of its own")
	}

	edge.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v1/listen", nil))
	if got := telemetry.TraceID(seen); len(got) != 32 || strings.Contains(remote, got) {
		t.Errorf("a request without a trace got %q", got)
	}
}

// What tools of builds have made goes where the process's own spans go, and is never taken
// for one of these.
func TestSpansOfToolsAreOfAServiceOfTheirOwn(t *testing.T) {
	tel, stop := start(t, io.Discard, map[string]string{"OTEL_SERVICE_NAME": "scheduler"})
	if tel.Tools() != nil {
		t.Error("spans are recorded that nobody keeps")
	}
	kept := tracetest.NewInMemoryExporter()
	tel.Keep(keeping{kept})
	const named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := telemetry.WithSpan(telemetry.WithTraceparent(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"), named)
	_, span := tel.Tools().Tracer("test").Start(ctx, "compile")
	span.End()
	stop()
	spans := kept.GetSpans()
	if len(spans) != 1 || spans[0].SpanContext.SpanID().String() != "b7ad6b7169203331" || spans[0].Resource.Attributes()[0].Value.AsString() != "build" || spans[0].Resource.Len() != 1 {
		t.Errorf("kept %v", spans)
	}
}

// keeping is an exporter that keeps what it has when it is stopped.
type keeping struct{ *tracetest.InMemoryExporter }

func (keeping) Shutdown(context.Context) error { return nil }
