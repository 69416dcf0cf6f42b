package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/find"
)

const (
	// windowLines and windowBytes bound what a page holds of a log at first, and what it
	// asks for at once; one line may reach over the latter.
	windowLines, windowBytes = 400, 256 << 10
	// afterFailure is how many lines are shown after the end of a step that failed.
	afterFailure = 40
)

// logs are the pages' logs.
type logs struct {
	*Pages
	lines schedulerv1.LogServiceClient
	feeds feeds
}

func newLogs(p *Pages) *logs {
	l := &logs{Pages: p, lines: schedulerv1.NewLogServiceClient(p.deps.Scheduler)}
	l.feeds.logs = l
	return l
}

func (l *logs) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /builds/{id}/log", l.raw)
	mux.HandleFunc("GET /builds/{id}/log/lines", l.window)
	mux.HandleFunc("GET /builds/{id}/log/outline", l.outline)
	mux.HandleFunc("GET /builds/{id}/log/search", l.search)
	mux.HandleFunc("GET /builds/{id}/log/events", l.events)
}

// asked is what an address says of a log.
type asked struct {
	Attempt int32
	Line    int64 // 0: wherever it opens
	Count   int64
	Query   find.Query
}

func askedOf(r *http.Request) asked {
	number := func(name string, most int64) int64 {
		n, err := strconv.ParseInt(r.FormValue(name), 10, 64)
		if err != nil {
			return 0
		}
		return min(max(n, 0), most)
	}
	return asked{
		Attempt: int32(number("attempt", 1<<30)), Line: number("line", 1<<60), Count: number("count", windowLines), //nolint:gosec // at most
		Query: find.Query{Text: r.FormValue("q"), Regex: r.FormValue("regex") != "", MatchCase: r.FormValue("case") != ""},
	}
}

// finder finds what is asked for; nil where nothing is, or nothing that can be.
func (a asked) finder() *find.Finder {
	if a.Query.Text == "" {
		return nil
	}
	finder, err := find.Compile(a.Query)
	if err != nil {
		return nil
	}
	return finder
}

// read is what a log shows from a line on, as HTML, and the lines of it; at most so
// many.
func (l *logs) read(ctx context.Context, b *schedulerv1.Build, attempt int32, line, count int64, finder *find.Finder) (string, []*schedulerv1.LogLine, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()                                                                                                                             // ends the stream where no more of it is wanted
	stream, err := l.lines.ReadLog(ctx, &schedulerv1.ReadLogRequest{BuildId: b.GetId(), Attempt: attempt, Line: line, PageSize: int32(count)}) //nolint:gosec // a few hundred
	if err != nil {
		return "", nil, fmt.Errorf("read log of build %s: %w", b.GetId(), err)
	}
	rows := rows{build: b, finder: finder}
	var html strings.Builder
	var all []*schedulerv1.LogLine
	for size := 0; size < windowBytes; {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, fmt.Errorf("read log of build %s: %w", b.GetId(), err)
		}
		kept := 0
		for kept < len(resp.GetLines()) && (size < windowBytes || kept == 0) {
			size += len(resp.GetLines()[kept].GetText()) + len(resp.GetLines()[kept].GetTail())
			kept++
		}
		resp.Lines = resp.GetLines()[:kept]
		part, err := rows.of(resp)
		if err != nil {
			return "", nil, err
		}
		html.WriteString(part)
		all = append(all, resp.GetLines()...)
	}
	return html.String(), all, nil
}

// window is some lines of a log as a part of its page.
func (l *logs) window(w http.ResponseWriter, r *http.Request) {
	asked := askedOf(r)
	b, err := l.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		l.refuse(w, r, "GetBuild", err)
		return
	}
	html, _, err := l.read(r.Context(), b.GetBuild(), asked.Attempt, max(asked.Line, 1), max(asked.Count, 1), asked.finder())
	if err != nil {
		l.refuse(w, r, "ReadLog", err)
		return
	}
	secure(w, "text/html; charset=utf-8")
	_, _ = strings.NewReader(html).WriteTo(w) // a reader who left is no error
}

// outlined is what the page's script knows of a log.
type outlined struct {
	Lines int64         `json:"lines"`
	Over  bool          `json:"over"`
	Steps []outlineStep `json:"steps"`
	// Marks are lines that tell of errors, and negative ones that warn.
	Marks []int64 `json:"marks"`
}

type outlineStep struct {
	Number int32 `json:"number"`
	First  int64 `json:"first"`
	Lines  int64 `json:"lines"`
}

// outline says where in a log things are.
func (l *logs) outline(w http.ResponseWriter, r *http.Request) {
	resp, err := l.lines.GetLog(r.Context(), &schedulerv1.GetLogRequest{BuildId: r.PathValue("id"), Attempt: askedOf(r).Attempt})
	if err != nil {
		l.refuse(w, r, "GetLog", err)
		return
	}
	log := resp.GetLog()
	told := outlined{Lines: log.GetLineCount(), Over: log.GetOver(), Steps: []outlineStep{}, Marks: []int64{}}
	for _, step := range log.GetSteps() {
		told.Steps = append(told.Steps, outlineStep{step.GetNumber(), step.GetFirstLine(), step.GetLineCount()})
	}
	for _, mark := range log.GetMarks() {
		line := mark.GetLine()
		if mark.GetLevel() == schedulerv1.LogLine_LEVEL_WARNING {
			line = -line
		}
		told.Marks = append(told.Marks, line)
	}
	secure(w, "application/json")
	_ = json.NewEncoder(w).Encode(told) //nolint:errchkjson // numbers; a reader who left is no error
}

// found is what a search tells, a line of JSON each time.
type found struct {
	Lines       []int64 `json:"lines,omitempty"`
	Before      bool    `json:"before,omitempty"`
	Count       int64   `json:"count"`
	BeforeCount int64   `json:"beforeCount"`
	Done        bool    `json:"done,omitempty"`
	Incomplete  bool    `json:"incomplete,omitempty"`
}

// search looks for a text in a log and tells what it has found as it goes.
func (l *logs) search(w http.ResponseWriter, r *http.Request) {
	asked := askedOf(r)
	stream, err := l.lines.SearchLog(r.Context(), &schedulerv1.SearchLogRequest{
		BuildId: r.PathValue("id"), Attempt: asked.Attempt, Query: asked.Query.Text, Regex: asked.Query.Regex, MatchCase: asked.Query.MatchCase, AroundLine: asked.Line,
	})
	var resp *schedulerv1.SearchLogResponse
	if err == nil {
		resp, err = stream.Recv()
	}
	if err != nil {
		l.refuse(w, r, "SearchLog", err)
		return
	}
	secure(w, "application/x-ndjson")
	out := json.NewEncoder(flushing{w})
	for ; err == nil; resp, err = stream.Recv() {
		told := found{resp.GetLines(), resp.GetBefore(), resp.GetHitCount(), resp.GetBeforeCount(), resp.GetDone(), resp.GetIncomplete()}
		if out.Encode(told) != nil { //nolint:errchkjson // numbers
			return // the reader has left
		}
	}
	if !errors.Is(err, io.EOF) && r.Context().Err() == nil {
		l.deps.Log.WarnContext(r.Context(), "SearchLog failed; the search breaks off", "build", r.PathValue("id"), "error", err)
	}
}

// refuse answers the page's script.
func (l *logs) refuse(w http.ResponseWriter, r *http.Request, call string, err error) {
	code, text := http.StatusServiceUnavailable, "the log cannot be read right now"
	switch {
	case fault.Is(err, fault.Invalid):
		code, text = http.StatusBadRequest, status.Convert(err).Message()
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
		code, text = http.StatusNotFound, status.Convert(err).Message()
	case errors.Is(err, context.Canceled):
	default:
		l.deps.Log.WarnContext(r.Context(), "a call failed; a part of a log is not shown", "call", call, "error", err)
	}
	secure(w, "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = strings.NewReader(text).WriteTo(w)
}

// searchPatience is how long a page without a script waits for a search.
const searchPatience = 5 * time.Second
