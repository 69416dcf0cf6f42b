package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/forge-ci/forge/services/gateway/traces"
)

func spanOf(id, parent byte, from, to int, attributes ...traces.Attribute) traces.Span {
	start := time.Unix(1_800_000_000, 0)
	return traces.Span{
		ID: trace.SpanID{id}, Parent: trace.SpanID{parent}, Name: fmt.Sprintf("s%d", id), Attributes: attributes,
		Start: start.Add(time.Duration(from) * time.Second), End: start.Add(time.Duration(to) * time.Second),
	}
}

// waterOutline is the rows of a waterfall, as people see them.
func waterOutline(w *waterfall) string {
	var text strings.Builder
	for _, row := range w.Rows {
		lost := ""
		if row.Lost {
			lost = " lost"
		}
		fmt.Fprintf(&text, "%s%s %s %s%s\n", strings.Repeat(" ", row.Depth), row.Name, row.X, row.Width, lost)
	}
	return text.String()
}

func TestWaterfallIsInOrderAndToScale(t *testing.T) {
	w := waterfallOf(traces.Trace{Left: 3, Spans: []traces.Span{
		spanOf(3, 1, 5, 10), spanOf(2, 1, 0, 4), spanOf(4, 3, 6, 6), spanOf(1, 0, 0, 10), spanOf(5, 99, 9, 10),
	}})
	const want = `s1 0.00% 100.00%
 s2 0.00% 40.00%
 s3 50.00% 50.00%
  s4 60.00% 0.25%
s5 90.00% 10.00% lost
`
	if got := waterOutline(w); got != want || w.Took != "10s" || w.More != 3 {
		t.Errorf("%s, %d more:\n%swant:\n%s", w.Took, w.More, got, want)
	}
}

func TestCallsAreShownWithoutTheirPackage(t *testing.T) {
	for name, want := range map[string]string{
		"forge.scheduler.v1.EventService/ReceiveEvent": "EventService/ReceiveEvent",
		"EventService/ReceiveEvent":                    "EventService/ReceiveEvent",
		"POST /v1.0/listen":                            "POST /v1.0/listen",
		"a.b/c/d":                                      "a.b/c/d",
		"./":                                           "/",
		"v1.2":                                         "v1.2",
		"":                                             "",
	} {
		if got := (waterRow{Span: traces.Span{Name: name}}).Short(); got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}

// Each span is shown once, whatever it says of its parents.
func TestWaterfallOfHostileSpansEnds(t *testing.T) {
	circle := waterfallOf(traces.Trace{Spans: []traces.Span{spanOf(1, 3, 2, 3), spanOf(2, 1, 1, 4), spanOf(3, 2, 0, 4), spanOf(4, 4, 0, 1)}})
	if got := waterOutline(circle); len(circle.Rows) != 4 {
		t.Errorf("a circle:\n%s", got)
	}
	var chain []traces.Span
	for n := range 50_000 {
		s := spanOf(0, 0, 0, 1)
		s.ID, s.Parent = trace.SpanID{1, byte(n >> 16), byte(n >> 8), byte(n)}, trace.SpanID{1, byte((n - 1) >> 16), byte((n - 1) >> 8), byte(n - 1)}
		chain = append(chain, s)
	}
	deep := waterfallOf(traces.Trace{Spans: chain})
	if len(deep.Rows) != mostRows || deep.More != len(chain)-mostRows || deep.Rows[mostRows-1].Depth != mostInset {
		t.Errorf("a chain: %d rows, %d more", len(deep.Rows), deep.More)
	}
	if none := waterfallOf(traces.Trace{}); len(none.Rows) != 0 {
		t.Errorf("nothing: %v", none.Rows)
	}
}

// Who may see a build sees its spans and those below, and none of another build of the
// same trace, though its spans say that they belong below.
func TestPartOfABuildHasNothingOfAnother(t *testing.T) {
	run := func(id string) traces.Attribute { return traces.Attribute{Key: runID, Value: id} }
	whole := traces.Trace{Spans: []traces.Span{
		spanOf(1, 0, 0, 9), // the delivery
		spanOf(2, 1, 1, 5, run("mine")), spanOf(3, 2, 1, 2), spanOf(4, 3, 1, 2),
		spanOf(5, 1, 1, 5, run("another")), spanOf(6, 5, 1, 2),
		spanOf(7, 2, 1, 2, run("another")), spanOf(8, 7, 1, 2),
		spanOf(9, 1, 1, 2, run("job of mine")),
	}}
	var names []string
	for _, row := range waterfallOf(ofRuns(whole, map[string]bool{"mine": true, "job of mine": true})).Rows {
		names = append(names, row.Name)
	}
	if got := strings.Join(names, " "); got != "s2 s3 s4 s9" {
		t.Errorf("shown: %s", got)
	}
}
