package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// logView is the part of a build's page that shows its log.
type logView struct {
	Asked asked
	Rows  template.HTML
	// First and Last are the lines shown, and Count how many there are. Offset is
	// where the next begins, in bytes. At is the one to be in view.
	First, Last, Count, Offset, At int64
	Over                           bool
	// Trouble is why it shows nothing; empty for nothing.
	Trouble string

	// Of a search: how many hits there are, what is wrong with the query, and the lines
	// of the hits before and after At; 0 where there is none.
	Hits                int64
	Incomplete          bool
	Problem             string
	HitBefore, HitAfter int64
}

// view is what a page shows of a build's log.
func (l *logs) view(r *http.Request, b *schedulerv1.Build) *logView {
	v := &logView{Asked: askedOf(r)}
	if v.Asked.Attempt == 0 {
		v.Asked.Attempt = b.GetAttempt()
	}
	if b.GetAttempt() == 0 {
		v.Over = ended(b)
		return v
	}
	err := l.open(r.Context(), b, v)
	switch {
	case err == nil:
	case fault.Is(err, fault.NotFound):
		v.Trouble = "The log was removed, since it is old."
	default:
		l.deps.Log.WarnContext(r.Context(), "a call failed; the page of the build shows no log", "build", b.GetId(), "error", err)
		v.Trouble = "The log cannot be read right now."
	}
	return v
}

func (l *logs) open(ctx context.Context, b *schedulerv1.Build, v *logView) error {
	resp, err := l.lines.GetLog(ctx, &schedulerv1.GetLogRequest{BuildId: b.GetId(), Attempt: v.Asked.Attempt})
	if err != nil {
		return fmt.Errorf("read log of build %s: %w", b.GetId(), err)
	}
	log := resp.GetLog()
	v.Count, v.Over, v.Asked.Attempt = log.GetLineCount(), log.GetOver(), log.GetAttempt()
	if v.Count == 0 {
		return nil
	}
	v.At = min(v.Asked.Line, v.Count)
	after := int64(windowLines / 2)
	if v.At == 0 {
		v.At, after = opening(b, log), afterFailure
	}
	if v.Asked.Query.Text != "" {
		if err := l.find(ctx, b, v); err != nil {
			return err
		}
	}
	v.First = max(1, min(v.At+after, v.Count)-windowLines+1)
	html, lines, err := l.read(ctx, b, v.Asked.Attempt, v.First, windowLines, v.Asked.finder())
	if err != nil {
		return err
	}
	// Where lines are long there are fewer: then those before the one that matters go.
	for len(lines) > 0 && lines[len(lines)-1].GetNumber() < v.At {
		v.First = min(v.At, lines[len(lines)-1].GetNumber()+1)
		if html, lines, err = l.read(ctx, b, v.Asked.Attempt, v.First, windowLines, v.Asked.finder()); err != nil {
			return err
		}
	}
	v.Rows = template.HTML(html) //nolint:gosec // rows are escaped
	if len(lines) > 0 {
		last := lines[len(lines)-1]
		v.Last, v.Offset = last.GetNumber(), last.GetOffset()
		if !last.GetOpen() {
			v.Offset += last.GetSize()
		}
	}
	return nil
}

// opening is the line that a log opens at: the last of the step that failed, or of
// all, as it is while more is printed.
func opening(b *schedulerv1.Build, log *schedulerv1.Log) int64 {
	for _, step := range b.GetSteps() {
		if step.GetState() != schedulerv1.Step_STATE_FAILED || !log.GetOver() {
			continue
		}
		for _, at := range log.GetSteps() {
			if at.GetNumber() == step.GetNumber() && at.GetLineCount() > 0 {
				return at.GetFirstLine() + at.GetLineCount() - 1
			}
		}
	}
	return log.GetLineCount()
}

// find has the view be at the first hit from its line on, or else at the last one.
func (l *logs) find(ctx context.Context, b *schedulerv1.Build, v *logView) error {
	ctx, cancel := context.WithTimeout(ctx, searchPatience)
	defer cancel()
	stream, err := l.lines.SearchLog(ctx, &schedulerv1.SearchLogRequest{
		BuildId: b.GetId(), Attempt: v.Asked.Attempt, AroundLine: max(v.Asked.Line, 1), MaxHits: 1000,
		Query: v.Asked.Query.Text, Regex: v.Asked.Query.Regex, MatchCase: v.Asked.Query.MatchCase,
	})
	v.Incomplete = true
	var before, after []int64
	for err == nil {
		var resp *schedulerv1.SearchLogResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		v.Hits, v.Incomplete = resp.GetHitCount(), !resp.GetDone() || resp.GetIncomplete()
		if resp.GetBefore() {
			before = append(before, resp.GetLines()...)
		} else {
			after = append(after, resp.GetLines()...)
		}
	}
	v.stand(slices.Concat(before, after), len(before))
	if fault.Is(err, fault.Invalid) {
		v.Problem, v.Incomplete = status.Convert(err).Message(), false
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

// stand has the view be at a hit, the first of those from its line on, and know those around it.
func (v *logView) stand(hits []int64, first int) {
	if len(hits) == 0 {
		return
	}
	v.At = hits[min(first, len(hits)-1)]
	for _, line := range hits {
		switch {
		case line < v.At:
			v.HitBefore = line
		case line > v.At && v.HitAfter == 0:
			v.HitAfter = line
		}
	}
}

// Address is that of the page with the log at a line, for who has no script.
func (v *logView) Address(line int64) string {
	query := url.Values{"line": {strconv.FormatInt(line, 10)}}
	if v.Asked.Query.Text != "" {
		query.Set("q", v.Asked.Query.Text)
	}
	for name, set := range map[string]bool{"regex": v.Asked.Query.Regex, "case": v.Asked.Query.MatchCase} {
		if set {
			query.Set(name, "1")
		}
	}
	return "?" + query.Encode() + "#log"
}

// Earlier leads to the lines before those shown.
func (v *logView) Earlier() string { return v.Address(max(1, v.First-windowLines/2)) }

// Later leads to the lines after those shown.
func (v *logView) Later() string { return v.Address(min(v.Count, v.Last+windowLines/2)) }
