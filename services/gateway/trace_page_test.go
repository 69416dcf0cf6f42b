package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.opentelemetry.io/otel/trace"

	"github.com/forge-ci/forge/services/gateway/traces"
)

const tracedBuild = "0af7651916cd43dd8448eb211c80319c"

// asMarkup is what a build's own tools may call themselves.
const asMarkup = `"><script>alert(1)</script><img src=x onerror=alert(2)>`

// traced keeps the trace of a delivery that made b1, and of another that it shares it with.
func traced(t *testing.T) func(*Deps) {
	t.Helper()
	id, err := trace.TraceIDFromHex(tracedBuild)
	if err != nil {
		t.Fatal(err)
	}
	kept := traces.New(traces.Config{Bytes: 1 << 20, Age: 1000 * time.Hour, Now: func() time.Time { return at(100).AsTime() }})
	span := func(number, parent byte, service, kind, name string, from, to int64, attributes ...traces.Attribute) traces.Span {
		s := traces.Span{Trace: id, ID: trace.SpanID{number}, Name: name, Service: service, Kind: kind, Start: at(from).AsTime(), End: at(to).AsTime(), Attributes: attributes}
		if parent != 0 {
			s.Parent = trace.SpanID{parent}
		}
		return s
	}
	run := func(id string) traces.Attribute { return traces.Attribute{Key: "cicd.pipeline.run.id", Value: id} }
	failed := span(8, 7, "forgexec", "", "step unit tests", 3, 75, run("b1"), traces.Attribute{Key: "process.exit.code", Value: "3"})
	failed.Failed, failed.Message = true, "exit code 3"
	kept.Add([]traces.Span{
		span(1, 0, "gateway", "server", "POST /v1/listen", -12, -11),
		span(2, 1, "gateway", "consumer", "relay pull_request to scheduler", -11, -10),
		span(3, 2, "scheduler", "server", "forge.scheduler.v1.EventService/ReceiveEvent", -11, -10),
		span(4, 3, "scheduler", "", "plan", -11, -10, traces.Attribute{Key: "vcs.repository.name", Value: "web"}),
		span(5, 4, "scheduler", "", "wait in queue", -10, -6, run("b1")),
		span(6, 4, "scheduler", "", "start container", -6, -3, run("b1")),
		span(7, 4, "scheduler", "server", "RUN test", 0, 75, run("b1")),
		failed,
		span(9, 8, strings.Repeat("wide", 50), "client", asMarkup+strings.Repeat("x", 500), 4, 70, traces.Attribute{Key: asMarkup, Value: asMarkup + strings.Repeat("y", 2000)}),
		span(10, 4, "scheduler", "", "only-of-another", 0, 5, run("b2")),
	})
	return func(d *Deps) { d.Traces = kept }
}

// A trace shows what a delivery did: it is for operators. The part of a build is for who
// may see the build, and nothing of another is in it.
func TestTracesAreForWhoMaySeeWhatTheyAreOf(t *testing.T) {
	w := newSignIns(t, traced(t))
	w.rooms.build.TraceId = tracedBuild
	rita, _ := w.signIn("rita")
	stan, _ := w.signIn("stan")
	boss, _ := w.signIn("boss")
	const whole, part = "/traces/" + tracedBuild, "/traces/" + tracedBuild + "?build=b1"
	for name, c := range map[string]struct {
		who         func(*http.Request)
		path        string
		code        int
		shows, lack string
	}{
		"a stranger, whole":         {nil, whole, http.StatusUnauthorized, "", "plan"},
		"a stranger, part":          {nil, part, http.StatusUnauthorized, "", "RUN test"},
		"who reads nothing, part":   {stan, part, http.StatusForbidden, "", "RUN test"},
		"who reads nothing, whole":  {stan, whole, http.StatusForbidden, "", "RUN test"},
		"a reader, whole":           {rita, whole, http.StatusForbidden, "", "RUN test"},
		"a reader, part":            {rita, part, http.StatusOK, "RUN test", "only-of-another"},
		"a reader sees no delivery": {rita, part, http.StatusOK, "step unit tests", "/v1/listen"},
		"an operator, whole":        {boss, whole, http.StatusOK, "only-of-another", "<script>alert"},
		"an operator, part":         {boss, part, http.StatusOK, "RUN test", "only-of-another"},
		"another trace":             {rita, "/traces/1af7651916cd43dd8448eb211c80319c?build=b1", http.StatusNotFound, "", "RUN test"},
		"no trace":                  {boss, "/traces/1af7651916cd43dd8448eb211c80319c", http.StatusNotFound, "not kept", "plan"},
		"no id":                     {boss, "/traces/%3Cscript%3Ealert(1)", http.StatusNotFound, "not kept", "<script>alert"},
		"a build that is not there": {boss, "/traces/" + tracedBuild + "?build=nope", http.StatusNotFound, "", "RUN test"},
	} {
		answer, text := w.as(c.who, http.MethodGet, c.path, nil)
		_, main, _ := strings.Cut(text, "<main")
		if answer.StatusCode != c.code || !strings.Contains(main, c.shows) || strings.Contains(main, c.lack) {
			t.Errorf("%s: %s, want %d with %q and without %q:\n%s", name, answer.Status, c.code, c.shows, c.lack, main)
		}
	}
	if _, text := w.as(rita, http.MethodGet, "/builds/b1", nil); !strings.Contains(text, `href="/traces/`+tracedBuild+`?build=b1"`) {
		t.Error("the page of the build leads to no trace")
	}
	// A kept trace is not shown as that of a build which somebody may see and which is not of it.
	w.rooms.build.TraceId = "1af7651916cd43dd8448eb211c80319c"
	for _, path := range []string{part, "/traces/" + strings.ToUpper(tracedBuild) + "?build=b1"} {
		if answer, text := w.as(rita, http.MethodGet, path, nil); answer.StatusCode != http.StatusNotFound || strings.Contains(text, "RUN test") {
			t.Errorf("%s of another's trace: %s\n%s", path, answer.Status, text)
		}
	}
}

// Each text of a span may be anybody's, and is text on the page.
func TestNoTextOfASpanIsMarkup(t *testing.T) {
	id, err := trace.TraceIDFromHex(tracedBuild)
	if err != nil {
		t.Fatal(err)
	}
	kept := traces.New(traces.Config{Bytes: 1 << 20, Age: time.Hour, Now: func() time.Time { return at(100).AsTime() }})
	kept.Add([]traces.Span{{
		Trace: id, ID: trace.SpanID{1}, Name: asMarkup, Service: asMarkup, Kind: asMarkup, Failed: true, Message: asMarkup, Start: at(0).AsTime(), End: at(9).AsTime(),
		Attributes: []traces.Attribute{{Key: "cicd.pipeline.run.id", Value: "b1"}, {Key: asMarkup, Value: asMarkup}, {Key: "vcs.repository.name", Value: asMarkup}},
	}})
	w := onSQLite(t, func(d *Deps) { d.Traces = kept })
	w.rooms.builds.build = failedBuild()
	w.rooms.builds.build.TraceId = tracedBuild
	code, body := w.get("/traces/" + tracedBuild + "?build=b1")
	if code != http.StatusOK || strings.Count(body, "&lt;script&gt;alert(1)") < 5 {
		t.Errorf("%d %s", code, body)
	}
	for _, markup := range []string{"<script>alert", "<img"} {
		if strings.Contains(body, markup) {
			t.Errorf("it holds %s:\n%s", markup, body)
		}
	}
}

func TestTracesMayBeShownElsewhere(t *testing.T) {
	w := onSQLite(t, func(d *Deps) { d.TraceURL = "https://jaeger.example/trace/{trace_id}" })
	w.rooms.builds.build = failedBuild()
	w.rooms.builds.build.TraceId = tracedBuild
	if _, body := w.get("/builds/b1"); !strings.Contains(body, `href="https://jaeger.example/trace/`+tracedBuild+`"`) {
		t.Error("the page of the build does not lead there")
	}
}

// By keys alone, and without scripts, each span tells what it is.
func TestATraceIsReadByKeys(t *testing.T) {
	w := onSQLite(t, traced(t))
	w.rooms.builds.build = failedBuild()
	w.rooms.builds.build.TraceId = tracedBuild
	b := newBrowser(t, chromedp.Flag("blink-settings", "scriptEnabled=false"))
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(w.http.URL+"/traces/"+tracedBuild+"?build=b1"))
	b.reads(".waterfall", "step unit tests")
	b.do(chromedp.Focus("li:nth-child(4) summary"), chromedp.KeyEvent("\r"))
	b.reads(".waterfall [open] dl", "exit code 3")
	b.reads(".waterfall [open] dl", "process.exit.code")
}
