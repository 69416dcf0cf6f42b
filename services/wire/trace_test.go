package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// One delivery is one trace, from GitHub's request to the last status, through
// all four services; in one process it is the same trace.
func TestOneDeliveryIsOneTrace(t *testing.T) {
	apart := traced(t, deployment{apart: true})
	kittest.Golden(t, "trace", []byte(apart))
	services := regexp.MustCompile(`(?m)^( *)[a-z]+: `)
	if diff := cmp.Diff(services.ReplaceAllString(apart, "$1"), services.ReplaceAllString(traced(t, deployment{}), "$1")); diff != "" {
		t.Errorf("one process tells another story than four (-four +one):\n%s", diff)
	}
}

// traced has one delivery come and returns its trace as text.
func traced(t *testing.T, d deployment) (tree string) {
	w := newWorld(t, map[string]string{
		".forge.yml": lines("image: busybox", "execute:", "  - {name: look, run: 'echo $TRACEPARENT'}", "  - {name: make, run: \""+kittest.Tool("link")+"\"}", "  - {name: fail, run: exit 3}"),
	})
	// Before Forge listens, so that the pull request is all that GitHub tells of.
	sha := w.branch(t, "change", files("greeting", "hello\n"))
	c := w.collector(t)
	w.deploy(t, d)
	w.awaitServing(t)
	w.open(t, "change")
	status := w.shows(t, sha, "forge/test", "failure")
	trace := regexp.MustCompile(`\b00-([0-9a-f]{32})-[0-9a-f]{16}-01\b`).FindStringSubmatch(w.log(t, status.TargetURL))
	if trace == nil {
		t.Fatal("the command saw no TRACEPARENT")
	}
	for _, p := range w.processes { // which sends what they still have
		p.stop(t)
	}
	for _, root := range c.roots(trace[1]) {
		// The calls of this test, what config and the gateway do when they start, and how
		// the scheduler learns of schedules.
		if !slices.Contains([]string{
			"GET /v1/", "GET /builds/{id}/log", "forge.config.v1.InstallationService/ListInstallations", "GitHub: list the App's installations",
			"forge.config.v1.HookDeliveryService/ListHookDeliveries",
			"forge.config.v1.CommitService/FindCommit", "forge.config.v1.BuildConfigService/GetBuildConfig",
		}, root) {
			t.Errorf("a trace begins with %q, which nobody asked for", root)
		}
	}
	return c.tree(t, trace[1])
}

// An answer to a comment is in the trace of the delivery that brought it.
func TestAnswerIsInTheTraceOfItsComment(t *testing.T) {
	w := newWorld(t, map[string]string{"README.md": "Nothing is built here.\n"})
	w.branch(t, "change", files("greeting", "hello\n"))
	number := w.open(t, "change")
	c := w.collector(t)
	w.deploy(t, deployment{apart: true})
	w.awaitServing(t)
	w.answered(t, number, w.comment(t, number, "octocat", "/forge help"), "+1", "People with write access")
	for _, p := range w.processes { // which sends what they still have
		p.stop(t)
	}
	kittest.Golden(t, "trace_comment", []byte(c.tree(t, c.traceOf(t, "tell GitHub an answer"))))
}

// awaitServing waits until every room is there and knows the installation.
func (s *server) awaitServing(t *testing.T) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		for _, room := range []string{"gateway", "scheduler", "reporter", "config"} {
			health := grpc_health_v1.NewHealthClient(s.dial(t, room))
			if _, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
				return fmt.Errorf("%s: %w", room, err)
			}
		}
		known, err := configv1.NewInstallationServiceClient(s.dial(t, "config")).ListInstallations(asAdmin(t.Context()), &configv1.ListInstallationsRequest{})
		if err != nil || len(known.GetInstallations()) == 0 {
			return fmt.Errorf("no installation is known: %w", err)
		}
		return nil
	})
}

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	url string

	mu    sync.Mutex
	spans []span
}

type span struct {
	*tracev1.Span
	service string
}

// collector is one that Forge sends its spans to, once deployed.
func (s *server) collector(t *testing.T) *collector {
	c := newCollector(t)
	s.env = append(s.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
	return c
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := &collectorv1.ExportTraceServiceRequest{}
		if err == nil {
			err = proto.Unmarshal(body, request)
		}
		if err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.take(request)
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *collector) take(request *collectorv1.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		var service string
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, one := range scope.GetSpans() {
				c.spans = append(c.spans, span{one, service})
			}
		}
	}
}

// tree is a trace as text: a line for each span, below its parent. How often
// something is tried or told depends on timing, so siblings of one name are one.
func (c *collector) tree(t *testing.T, trace string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	known, below := map[string]bool{}, map[string][]span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			known[string(s.GetSpanId())] = true
			below[string(s.GetParentSpanId())] = append(below[string(s.GetParentSpanId())], s)
		}
	}
	for parent, children := range below {
		if parent != "" && !known[parent] {
			t.Errorf("%q has a parent that was not exported", children[0].GetName())
		}
	}
	var text strings.Builder
	var write func(depth int, siblings []span)
	write = func(depth int, siblings []span) {
		children := map[string][]span{} // by the parent's line
		for _, s := range siblings {
			kind := strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"))
			line := fmt.Sprintf("%s: %s (%s)", s.service, s.GetName(), kind)
			children[line] = append(children[line], below[string(s.GetSpanId())]...)
		}
		for _, line := range slices.Sorted(maps.Keys(children)) {
			text.WriteString(strings.Repeat("  ", depth) + line + "\n")
			write(depth+1, children[line])
		}
	}
	write(0, below[""])
	return text.String()
}

// traceOf is the only trace with a span of this name.
func (c *collector) traceOf(t *testing.T, name string) (trace string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]bool{}
	for _, s := range c.spans {
		if s.GetName() == name {
			trace = hex.EncodeToString(s.GetTraceId())
			found[trace] = true
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d traces with %q", len(found), name)
	}
	return trace
}

// roots names the spans with which other traces begin.
func (c *collector) roots(but string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if len(s.GetParentSpanId()) == 0 && hex.EncodeToString(s.GetTraceId()) != but {
			names = append(names, s.GetName())
		}
	}
	return names
}

// With no set-up a build's trace is on a page, and who has no token writes nothing into it.
func TestTheTraceOfABuildIsShownWithNoSetUp(t *testing.T) {
	w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute:", "  - echo $TRACEPARENT $TRACESTATE $BAGGAGE", "  - {name: make, run: \""+kittest.Tool("link")+"\"}")})
	w.deploy(t, deployment{})
	w.awaitServing(t)
	_, sha := w.propose(t, "change", files("greeting", "hello\n"))
	status := w.shows(t, sha, "forge/test", "success")
	said := regexp.MustCompile(`00-([0-9a-f]{32})-([0-9a-f]{16})-01 forge=([0-9a-f]{16}) cicd.pipeline.name=test,cicd.pipeline.run.id=(\w+)`).FindStringSubmatch(w.log(t, status.TargetURL))
	if said == nil || said[2] != said[3] || !strings.HasSuffix(status.TargetURL, said[4]) {
		t.Fatalf("the command saw %q", said)
	}
	id, _ := hex.DecodeString(said[1])
	step, _ := hex.DecodeString(said[2])
	sent := func(name string, number byte) *collectorv1.ExportTraceServiceRequest {
		return &collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{
			{TraceId: id, SpanId: []byte{9, 9, 9, 9, 9, 9, 9, number}, ParentSpanId: step, Name: name},
		}}}}}}
	}
	// The attack: a build knows its trace, and with this engine reaches the address.
	intake := collectorv1.NewTraceServiceClient(w.dial(t, "gateway"))
	if _, err := intake.Export(t.Context(), sent("of-a-stranger", 1)); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("a stranger's spans: %v", err)
	}
	for _, token := range []string{"", "Bearer wrong", "Bearer "} {
		if code := w.sendSpans(t, token, sent("of-a-stranger", 1)); code != http.StatusUnauthorized {
			t.Errorf("a stranger's spans with %q: %d", token, code)
		}
	}
	if _, err := intake.Export(asAdmin(t.Context()), sent("of-gotestsum", 2)); err != nil {
		t.Error(err)
	}
	if code := w.sendSpans(t, "Bearer "+adminToken, sent("of-otel-cli", 3)); code != http.StatusOK {
		t.Errorf("over HTTP: %d", code)
	}
	page := w.http + "/traces/" + said[1] + "?build=" + said[4]
	kittest.Eventually(t, patience, func() error {
		shown := w.page(t, page)
		for _, want := range []string{"wait in queue", "start container", "RUN test", "step echo", "compile", "link", "build</span>", "forge.tool", "of-gotestsum", "of-otel-cli", "cicd.pipeline.task.name", "vcs.ref.head.revision"} {
			if !strings.Contains(shown, want) {
				return fmt.Errorf("%s shows no %s", page, want)
			}
		}
		if strings.Contains(shown, "of-a-stranger") || strings.Contains(shown, "/v1/listen") {
			return errors.New("it shows what is not of this build")
		}
		return nil
	})
}

// sendSpans sends spans over HTTP.
func (s *server) sendSpans(t *testing.T, authorization string, spans *collectorv1.ExportTraceServiceRequest) (code int) {
	t.Helper()
	body, err := proto.Marshal(spans)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.grpc+"/v1/traces", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Authorization", authorization)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}
