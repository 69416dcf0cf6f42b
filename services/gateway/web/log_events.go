package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// aliveEvery is how often who follows a log hears from the server at least, so that
	// no proxy takes the connection for dead.
	aliveEvery = 20 * time.Second
	// catchUp is how much of a log a page is sent that has missed it; what is more it
	// asks for when somebody scrolls there.
	catchUp = 512 << 10
)

// told is what a page is sent while a log grows.
type told struct {
	// Rows are those of lines that have ended, and Open that of the one that has not.
	Rows string `json:"rows,omitempty"`
	Open string `json:"open,omitempty"`
	// Lines is how many there are now. Missed is that some of them were left out before
	// these.
	Lines  int64 `json:"lines"`
	Missed bool  `json:"missed,omitempty"`
}

// events sends what a log gets as it comes, as server-sent events whose ids are
// offsets: a page that was cut off goes on where it was.
func (l *logs) events(w http.ResponseWriter, r *http.Request) {
	b, err := l.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		l.refuse(w, r, "GetBuild", err)
		return
	}
	at, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil {
		at, _ = strconv.ParseInt(r.FormValue("offset"), 10, 64)
	}
	attempt := askedOf(r).Attempt
	if attempt == 0 {
		attempt = b.GetBuild().GetAttempt()
	}
	secure(w, "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	out := flushing{w}
	if _, err := io.WriteString(out, ": hello\n\n"); err != nil {
		return
	}
	// Past the end is nothing that anybody was sent.
	at = max(0, min(at, b.GetBuild().GetLogSize()))
	reader := &follower{logs: l, build: b.GetBuild(), attempt: attempt, at: at, out: out}
	if err := reader.run(r.Context()); err != nil && r.Context().Err() == nil {
		l.deps.Log.WarnContext(r.Context(), "a log is not followed any more; its page asks again", "build", b.GetBuild().GetId(), "error", err)
	}
}

// follower is a page that follows a log.
type follower struct {
	logs    *logs
	build   *schedulerv1.Build
	attempt int32
	at      int64 // it has all before this
	out     io.Writer
}

func (f *follower) run(ctx context.Context) error {
	feed, leave := f.logs.feeds.join(ctx, f.build, f.attempt, f.at)
	defer leave()
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	open := ""
	for {
		now := feed.since(f.at)
		if now.behind {
			if err := f.catchUp(ctx, now.from); err != nil {
				return err
			}
			continue
		}
		for _, event := range now.events {
			if _, err := f.out.Write(event.text); err != nil {
				return nil // the reader has left
			}
			f.at, open = event.to, ""
		}
		if now.open != open {
			if _, err := io.WriteString(f.out, now.open); err != nil {
				return nil // the reader has left
			}
			open = now.open
		}
		if now.over {
			_, err := io.WriteString(f.out, "event: end\ndata: {}\n\n")
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-now.changed:
		case <-alive.C:
			if _, err := io.WriteString(f.out, ": still here\n\n"); err != nil {
				return nil // the reader has left
			}
		}
	}
}

// catchUp sends what lies between where the page is and where the feed goes on.
func (f *follower) catchUp(ctx context.Context, until int64) error {
	missed := until-f.at > catchUp
	if missed {
		f.at = until - catchUp
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.logs.lines.ReadLog(ctx, &schedulerv1.ReadLogRequest{BuildId: f.build.GetId(), Attempt: f.attempt, Offset: f.at, PageSize: 1 << 30})
	rows := rows{build: f.build}
	for err == nil && f.at < until {
		var resp *schedulerv1.ReadLogResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		kept := resp.GetLines()
		for n, line := range kept {
			if line.GetOffset() >= until || line.GetOpen() {
				kept = kept[:n]
				break
			}
		}
		ends := len(kept) < len(resp.GetLines())
		resp.Lines = kept
		if len(kept) > 0 {
			event, eventErr := newEvent(&rows, resp, missed)
			if eventErr != nil {
				return eventErr
			}
			if _, err := f.out.Write(event.text); err != nil {
				return err
			}
			f.at, missed = event.to, false
		}
		if ends {
			break
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read log of build %s: %w", f.build.GetId(), err)
	}
	f.at = max(f.at, until) // whatever there is between is no line of its own
	return nil
}

// event is what all pages that follow a log are sent alike.
type event struct {
	from, to int64  // the bytes of the log that it shows
	text     []byte // as it is sent
}

// newEvent is that of lines that have ended, of which there are some.
func newEvent(rows *rows, resp *schedulerv1.ReadLogResponse, missed bool) (event, error) {
	html, err := rows.of(resp)
	if err != nil {
		return event{}, err
	}
	last := resp.GetLines()[len(resp.GetLines())-1]
	e := event{from: resp.GetLines()[0].GetOffset(), to: last.GetOffset() + last.GetSize()}
	e.text, err = encode(e.to, told{Rows: html, Lines: resp.GetLineCount(), Missed: missed})
	return e, err
}

// encode is an event as it is sent; its id is where the page goes on after it, or
// negative for none.
func encode(id int64, t told) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("event of a log: %w", err)
	}
	if id < 0 {
		return fmt.Appendf(nil, "data: %s\n\n", data), nil
	}
	return fmt.Appendf(nil, "id: %d\ndata: %s\n\n", id, data), nil
}
