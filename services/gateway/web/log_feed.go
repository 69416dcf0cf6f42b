package web

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// feedKept is how much of what was sent is kept for pages that are slower than
	// others, in bytes.
	feedKept = 2 << 20
	// feedBehind is how far before the end a feed begins at most, in bytes of the log.
	feedBehind = 64 << 10
	// feedAgain is how long a feed waits before it asks again.
	feedAgain = time.Second
)

// feeds are the logs that pages follow just now. All that follow one share what is
// read and rendered of it, so that two hundred cost as much as one.
type feeds struct {
	logs *logs
	mu   sync.Mutex
	live map[feedKey]*feed
}

type feedKey struct {
	build   string
	attempt int32
}

// feed is a log that pages follow.
type feed struct {
	readers int // guarded by feeds.mu
	stop    context.CancelFunc
	reading sync.WaitGroup

	mu      sync.Mutex
	begin   int64 // where the first of the events begins, or would
	events  []event
	size    int
	open    string        // the event of the line that has not ended
	over    bool          // nothing more comes
	changed chan struct{} // closed when there is more
}

// join has somebody follow a log who has all of it before an offset. Who has joined
// leaves in the end.
func (f *feeds) join(ctx context.Context, b *schedulerv1.Build, attempt int32, at int64) (_ *feed, leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := feedKey{b.GetId(), attempt}
	joined := f.live[key]
	if joined == nil {
		if f.live == nil {
			f.live = map[feedKey]*feed{}
		}
		joined = &feed{begin: -1, changed: make(chan struct{})}
		reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // it outlasts the first who came
		joined.stop = stop
		joined.reading.Go(func() { f.run(reading, joined, b, attempt, at) })
		f.live[key] = joined
	}
	joined.readers++
	return joined, func() { f.leave(key, joined) }
}

func (f *feeds) leave(key feedKey, left *feed) {
	f.mu.Lock()
	left.readers--
	last := left.readers == 0
	if last && f.live[key] == left {
		delete(f.live, key)
	}
	f.mu.Unlock()
	if last {
		left.stop()
		left.reading.Wait()
	}
}

// run reads a log until it is over, or nobody follows it any more.
func (f *feeds) run(ctx context.Context, to *feed, b *schedulerv1.Build, attempt int32, at int64) {
	for {
		err := f.read(ctx, to, b, attempt, at)
		if err == nil || fault.Is(err, fault.NotFound) {
			to.add(event{}, "", true)
			return
		}
		if ctx.Err() != nil {
			return
		}
		f.logs.deps.Log.WarnContext(ctx, "ReadLog failed; a followed log goes on later", "build", b.GetId(), "retry_in", feedAgain, "error", err)
		again := time.NewTimer(feedAgain)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		again.Stop()
	}
}

// read reads on where the feed is.
func (f *feeds) read(ctx context.Context, to *feed, b *schedulerv1.Build, attempt int32, at int64) error {
	log, err := f.logs.lines.GetLog(ctx, &schedulerv1.GetLogRequest{BuildId: b.GetId(), Attempt: attempt})
	if err != nil {
		return err
	}
	at = to.goesOn(min(at, log.GetLog().GetSize()), log.GetLog().GetSize()-feedBehind)
	stream, err := f.logs.lines.ReadLog(ctx, &schedulerv1.ReadLogRequest{BuildId: b.GetId(), Attempt: attempt, Offset: at, Follow: true})
	if err != nil {
		return err
	}
	rows := rows{build: b}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.take(ctx, to, &rows, resp); err != nil {
			return err
		}
	}
}

// take makes events of lines.
func (f *feeds) take(ctx context.Context, to *feed, rows *rows, resp *schedulerv1.ReadLogResponse) error {
	f.nameSteps(ctx, rows, resp)
	var open *schedulerv1.LogLine
	if n := len(resp.GetLines()); n > 0 && resp.GetLines()[n-1].GetOpen() {
		open, resp.Lines = resp.GetLines()[n-1], resp.GetLines()[:n-1]
	}
	made, err := event{}, rows.renderer.Style(resp.GetStyle())
	if err == nil && len(resp.GetLines()) > 0 {
		made, err = newEvent(rows, resp, false)
	}
	if err != nil || open == nil {
		to.add(made, "", false)
		return err
	}
	html, err := rows.more([]*schedulerv1.LogLine{open})
	if err != nil {
		return err
	}
	text, err := encode(-1, told{Open: html, Lines: resp.GetLineCount()})
	to.add(made, string(text), false)
	return err
}

// nameSteps asks what steps are called that have begun since the build was read.
func (f *feeds) nameSteps(ctx context.Context, rows *rows, resp *schedulerv1.ReadLogResponse) {
	known := func(line *schedulerv1.LogLine) bool {
		return line.GetStep() == 0 || line.GetStepLine() != 1 || slices.ContainsFunc(rows.build.GetSteps(), func(step *schedulerv1.Step) bool { return step.GetNumber() == line.GetStep() })
	}
	if slices.ContainsFunc(resp.GetLines(), func(line *schedulerv1.LogLine) bool { return !known(line) }) {
		if b, err := f.logs.builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: rows.build.GetId()}); err == nil {
			rows.build = b.GetBuild()
		}
	}
}

// goesOn is where the feed reads on: after its last event, or else at an offset, but
// not before another.
func (f *feed) goesOn(at, least int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.events); n > 0 {
		return f.events[n-1].to
	}
	return max(at, least, 0)
}

// add has pages see another event, unless it shows nothing, and another open line.
func (f *feed) add(next event, open string, over bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if next.text != nil {
		if f.begin < 0 {
			f.begin = next.from
		}
		f.events, f.size = append(f.events, next), f.size+len(next.text)
		for f.size > feedKept && len(f.events) > 1 {
			f.begin, f.size = f.events[0].to, f.size-len(f.events[0].text)
			f.events = slices.Clone(f.events[1:])
		}
	}
	f.open, f.over = open, over
	close(f.changed)
	f.changed = make(chan struct{})
}

// news is what a feed has for somebody.
type news struct {
	behind  bool  // they have to catch up first
	from    int64 // as far as this
	events  []event
	open    string
	over    bool
	changed <-chan struct{}
}

// since is what comes after an offset.
func (f *feed) since(at int64) news {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := news{open: f.open, over: f.over, changed: f.changed}
	for n, e := range f.events {
		switch {
		case e.to <= at:
			continue
		case n == 0 && at < f.begin: // some went already, or were never here
			now.behind, now.from = true, f.begin
		case e.from < at: // in the middle of one
			now.behind, now.from = true, e.to
		default:
			now.events = slices.Clone(f.events[n:])
		}
		break
	}
	return now
}
