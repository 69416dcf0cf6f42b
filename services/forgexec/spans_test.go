package forgexec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const ownTrace = "0af7651916cd43dd8448eb211c80319c"

// traced is a scheduler that takes spans.
func traced(t *testing.T, steps ...string) *fakeScheduler {
	s := newScheduler(t, steps...)
	s.plan.Environment = map[string]string{"TRACEPARENT": "00-" + ownTrace + "-b7ad6b7169203331-01"}
	s.plan.SpanLimit = 2000
	return s
}

// toldSpans is what a report says of spans, but for their ids.
func toldSpans(told *schedulerv1.ToolSpans) string {
	var lines []string
	names := map[string]string{}
	for _, span := range told.GetSpans() {
		names[string(span.GetId())] = span.GetName()
	}
	for _, span := range told.GetSpans() {
		below := fmt.Sprintf("step %d", span.GetStep())
		if id := span.GetSpan(); id != nil {
			below = names[string(id)]
		}
		line := fmt.Sprintf("span %s of %s below %s", span.GetName(), span.GetTool(), below)
		if span.GetFailed() {
			line += " failed: " + span.GetMessage()
		}
		if token := span.GetAttributes()["token"]; token != "" {
			line += " token " + token
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	if told.GetForeign() != 0 || told.GetLeftOut() != 0 {
		lines = append(lines, fmt.Sprintf("%d foreign, %d left out", told.GetForeign(), told.GetLeftOut()))
	}
	return strings.Join(lines, "\n")
}

// A tool is told by OpenTelemetry's own variables where to send its spans, and no secret
// leaves the container by them.
func TestSpansOfToolsAreReported(t *testing.T) {
	for name, set := range map[string]string{
		"as they are": "",
		"packed":      "OTEL_EXPORTER_OTLP_COMPRESSION=gzip ",
	} {
		t.Run(name, func(t *testing.T) {
			s := traced(t, "true", "TEST_ACT_AS_FORGEXEC= "+set+kittest.Tool("link", "broken"))
			s.plan.Secrets = map[string]string{"TOKEN": "hunter2-hunter2"}
			s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0", "start 2",
				"span broken of scheduler below compile failed: it is broken: *** token ***",
				"span compile of scheduler below step 2",
				"span link of scheduler below compile token ***",
				"end 2 exit 0", "DONE")
		})
	}
}

// Whoever has said where spans are to go is not told otherwise; nor is anybody where nobody keeps them.
func TestToolsSendTheirSpansWhereTheBuildSays(t *testing.T) {
	const show = `echo "[$OTEL_EXPORTER_OTLP_ENDPOINT][$OTEL_EXPORTER_OTLP_PROTOCOL]"`
	for name, c := range map[string]struct {
		prepare func(*schedulerv1.Plan)
		env     []string
		want    string
	}{
		"nobody keeps them": {func(p *schedulerv1.Plan) { p.SpanLimit = 0 }, nil, `"[][]\n"`},
		"no trace":          {func(p *schedulerv1.Plan) { p.Environment = nil }, nil, `"[][]\n"`},
		"the file says":     {func(p *schedulerv1.Plan) { p.Environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://tempo:4318" }, nil, `"[http://tempo:4318][]\n"`},
		"the file says how": {func(p *schedulerv1.Plan) { p.Environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc" }, nil, `"[][grpc]\n"`},
		"a secret says": {func(p *schedulerv1.Plan) {
			p.Secrets = map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://tempo:4318"}
		}, nil, `"[][]\n"`},
		"the image says": {func(*schedulerv1.Plan) {}, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://tempo:4318"}, `"[http://tempo:4318][]\n"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := traced(t, show)
			c.prepare(s.plan)
			s.wantStory(t, s.forgexec(t, c.env...), "source 1 entries", "start 1", c.want, "end 1 exit 0", "DONE")
		})
	}
	s := traced(t, `echo OTEL_EXPORTER_OTLP_ENDPOINT=http://evil >>"$FORGE_ENV"`)
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1",
		`"forge: FORGE_ENV, line 1: OTEL_EXPORTER_OTLP_ENDPOINT is not for steps to set\n"`, "end 1 exit 1", "DONE")
}

// sending is what steps begin with that send spans of their own making.
const sending = `send() { curl -s -o /dev/null -w '%{http_code}\n' -H "Content-Type: $1" --data-binary @- "${3:-$OTEL_EXPORTER_OTLP_ENDPOINT}$2"; }
ids() { printf '"traceId":"%s","spanId":"%s"' "$1" "$2"; }
span() { printf '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"forge"}}]},"scopeSpans":[{"spans":[{%s,"name":"%s","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}' "$1" "$2"; }
OWN=` + ownTrace + `
`

// The attack: what is sent may be anything, and of any trace.
func TestSpansAreTakenOfTheOwnTraceAloneAndWithinBounds(t *testing.T) {
	kittest.Require(t, "curl")
	for name, c := range map[string]struct {
		step string
		want []string
	}{
		"as JSON": {`span "$(ids $OWN 00f067aa0ba902b7)" good | send application/json /v1/traces`, []string{`"200\n"`, "span good of forge below step 1"}},
		"of another trace": {
			`span "$(ids 1bf7651916cd43dd8448eb211c80319c 00f067aa0ba902b7)" evil | send application/json /v1/traces`,
			[]string{`"200\n"`, "1 foreign, 0 left out"},
		},
		"of no trace":        {`span '"spanId":"00f067aa0ba902b7"' evil | send application/json /v1/traces`, []string{`"200\n"`, "1 foreign, 0 left out"}},
		"without an id":      {`span "$(ids $OWN 00)" evil | send application/json /v1/traces`, []string{`"200\n"`, "0 foreign, 1 left out"}},
		"without a path":     {`span "$(ids $OWN 00f067aa0ba902b7)" evil | send application/json /v1/traces "$(echo $OTEL_EXPORTER_OTLP_ENDPOINT | cut -d/ -f1-3)"`, []string{`"404\n"`}},
		"rubbish":            {`echo rubbish | send application/x-protobuf /v1/traces`, []string{`"400\n"`}},
		"as text":            {`echo rubbish | send text/plain /v1/traces`, []string{`"415\n"`}},
		"too much":           {`head -c 1100000 /dev/zero | send application/x-protobuf /v1/traces`, []string{`"400\n"`}},
		"a bomb":             {`head -c 30000000 /dev/zero | gzip | curl -s -o /dev/null -w '%{http_code}\n' -H 'Content-Encoding: gzip' -H 'Content-Type: application/x-protobuf' --data-binary @- $OTEL_EXPORTER_OTLP_ENDPOINT/v1/traces`, []string{`"400\n"`}},
		"metrics, and logs":  {`echo '{}' | send application/json /v1/metrics; echo '{}' | send application/x-protobuf /v1/logs`, []string{`"200\n200\n"`}},
		"more than there is": {`SPANS=$(for n in 1 2 3 4 5; do printf '%s{%s,"name":"n%s"}' "$SEP" "$(ids $OWN 00f067aa0ba902b$n)" $n; SEP=,; done); echo '{"resourceSpans":[{"scopeSpans":[{"spans":['"$SPANS"']}]}]}' | send application/json /v1/traces`, []string{`"200\n"`, "span n1 of  below step 1", "span n2 of  below step 1", "span n3 of  below step 1", "0 foreign, 2 left out"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := traced(t, sending+c.step)
			s.plan.SpanLimit = 3
			s.wantStory(t, s.forgexec(t), append(append([]string{"source 1 entries", "start 1"}, c.want...), "end 1 exit 0", "DONE")...)
		})
	}
}

// No report is larger than the server takes, however much comes, and no attempt has more than there is room for.
func TestLargeSpansAreReportedInSeveralParts(t *testing.T) {
	kittest.Require(t, "curl")
	s := traced(t, sending+`LONG=$(head -c 900 /dev/zero | tr '\0' x)
SPANS=$(for n in $(seq 100 500); do printf '%s{%s,"name":"long","status":{"message":"%s"}}' "$SEP" "$(ids $OWN 00f067aa0ba90$n)" "$LONG"; SEP=,; done)
echo '{"resourceSpans":[{"scopeSpans":[{"spans":['"$SPANS"']}]}]}' >spans; send application/json /v1/traces <spans; send application/json /v1/traces <spans; send application/json /v1/traces <spans`)
	s.forgexec(t).wantExit(t, exitReported)
	spans, reports := 0, 0
	for _, report := range s.reports {
		if told := report.GetSpans(); told != nil {
			spans += len(told.GetSpans()) + int(told.GetLeftOut())
			reports++
		}
	}
	if spans != 3*401 || reports < 5 {
		t.Errorf("%d spans in %d reports:\n%s", spans, reports, s.story())
	}
}
