package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/forge-ci/forge/services/gateway/traces"
)

const (
	mostRows  = 1000
	mostInset = 11 // as far as the sheet moves a row in
)

// waterfall is a trace to scale: a row for each span, below the one that caused it.
type waterfall struct {
	Rows []waterRow
	Took string // how long the scale is
	More int    // spans that are not shown
}

// waterRow is a span. Its place is in percent of the whole, as the attributes of an SVG
// have it.
type waterRow struct {
	traces.Span
	Depth    int
	Lost     bool // its parent is not kept
	Took, At string
	X, Width string
}

// waterfallOf puts spans in order. They may be anybody's: of a circle of parents the
// earliest span begins it, and what is nobody's child stands at the top.
func waterfallOf(of traces.Trace) *waterfall {
	spans := slices.Clone(of.Spans)
	slices.SortFunc(spans, func(a, b traces.Span) int {
		return cmp.Or(a.Start.Compare(b.Start), b.End.Compare(a.End), slices.Compare(a.ID[:], b.ID[:]))
	})
	shown := &waterfall{More: of.Left}
	if len(spans) == 0 {
		return shown
	}
	known, below := map[trace.SpanID]bool{}, map[trace.SpanID][]int{}
	start, end := spans[0].Start, spans[0].End
	for n, s := range spans {
		known[s.ID] = true
		if s.Parent != s.ID {
			below[s.Parent] = append(below[s.Parent], n)
		}
		if s.End.After(end) {
			end = s.End
		}
	}
	shown.Took = took(end.Sub(start))
	placed := make([]bool, len(spans))
	type place struct{ span, depth int }
	put := func(first int) {
		for stack := []place{{first, 0}}; len(stack) > 0; {
			at := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if placed[at.span] {
				continue
			}
			placed[at.span] = true
			s := spans[at.span]
			shown.Rows = append(shown.Rows, rowOf(s, at.depth, at.depth == 0 && s.Parent.IsValid(), start, end))
			for _, child := range slices.Backward(below[s.ID]) {
				stack = append(stack, place{child, at.depth + 1})
			}
		}
	}
	for n, s := range spans {
		if !known[s.Parent] || s.Parent == s.ID {
			put(n)
		}
	}
	for n := range spans { // circles
		put(n)
	}
	if len(shown.Rows) > mostRows {
		shown.More += len(shown.Rows) - mostRows
		shown.Rows = shown.Rows[:mostRows]
	}
	return shown
}

func rowOf(s traces.Span, depth int, lost bool, start, end time.Time) waterRow {
	row := waterRow{Span: s, Depth: min(depth, mostInset), Lost: lost, Took: took(s.End.Sub(s.Start)), At: took(s.Start.Sub(start))}
	from, width := 0.0, 100.0
	if whole := end.Sub(start).Seconds(); whole > 0 {
		from, width = 100*s.Start.Sub(start).Seconds()/whole, 100*s.End.Sub(s.Start).Seconds()/whole
	}
	width = max(width, 0.25) // what takes no time is seen, too
	row.X, row.Width = fmt.Sprintf("%.2f%%", min(from, 100-width)), fmt.Sprintf("%.2f%%", width)
	return row
}

// Class is how a row's bar is drawn.
func (r waterRow) Class() string {
	if r.Failed {
		return "failed"
	}
	switch r.Kind {
	case "server", "client", "consumer", "producer":
		return r.Kind
	default:
		return "own"
	}
}

// Short is the name, of a call without the package of its service: it is what people tell
// calls apart by.
func (r waterRow) Short() string {
	service, call, isCall := strings.Cut(r.Name, "/")
	dot := strings.LastIndexByte(service, '.')
	if !isCall || dot < 0 || strings.ContainsAny(r.Name, " ") || strings.Contains(call, "/") {
		return r.Name
	}
	return r.Name[dot+1:]
}

// runID is the attribute by which OpenTelemetry names the run that a span is of.
const runID = "cicd.pipeline.run.id"

// ofRuns is the part of a trace that belongs to these builds: spans that name one of
// them, and what is below. The rest may be another's who shares the trace.
func ofRuns(whole traces.Trace, ids map[string]bool) traces.Trace {
	below, wanted := map[trace.SpanID][]traces.Span{}, traces.Trace{}
	var stack []traces.Span
	for _, s := range whole.Spans {
		below[s.Parent] = append(below[s.Parent], s)
		if ids[s.Attribute(runID)] {
			stack = append(stack, s)
		}
	}
	seen := map[trace.SpanID]bool{}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if run := s.Attribute(runID); seen[s.ID] || run != "" && !ids[run] {
			continue
		}
		seen[s.ID] = true
		wanted.Spans = append(wanted.Spans, s)
		stack = append(stack, below[s.ID]...)
	}
	return wanted
}
