package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

type watch struct {
	query
	Repo  string        `aliases:"repository" placeholder:"OWNER/NAME" help:"Only this repository."`
	Every time.Duration `default:"2s" help:"How often to look; 500ms at least."`
}

// Validate refuses to ask without a pause.
func (w watch) Validate() error {
	if w.Every < 500*time.Millisecond {
		return errors.New("--every: expected 500ms or more")
	}
	return nil
}

// Run shows what waits and runs until Ctrl-C: on a terminal as a page that is drawn
// again, which q leaves, too; elsewhere as a line for each change.
func (w watch) Run() error {
	err := untilInterrupted(func(ctx context.Context) error {
		return w.session(ctx, true, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			watcher := newWatcher(schedulerv1.NewBuildServiceClient(conn), w.Repo)
			watcher.heardOf = func(ctx context.Context) error { return heardOf(ctx, conn, w.Repo, 0, nil) }
			tick := time.NewTicker(w.Every).C
			if w.json() || !wantsColour(os.Stdout) {
				return watcher.run(ctx, w.lines(), tick)
			}
			resized := make(chan os.Signal, 1)
			signal.Notify(resized, syscall.SIGWINCH)
			defer signal.Stop(resized)
			return atKeyboard(ctx, resized, func(ctx context.Context, k *keyboard) error {
				return watcher.run(ctx, screen{page: func(p *page) error { return k.draw(os.Stdout, p) }, resized: resized}, tick)
			})
		})
	})
	if errors.Is(err, errInterrupted) || errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// lines is a screen of lines.
func (w watch) lines() screen {
	if w.json() {
		return screen{changed: func(b *schedulerv1.Build) error { return w.printLine(b) }}
	}
	return screen{
		changed: func(b *schedulerv1.Build) error {
			return printText(os.Stdout, func(out io.Writer) { fmt.Fprintln(out, watchedLine(out, b, time.Now())) }) //nolint:errcheck // out is memory
		},
		away: func(err error) { fmt.Fprintln(os.Stderr, "forge:", complaint(err)+"; trying again") },
	}
}

// screen shows what a watcher has seen; what is nil is not shown.
type screen struct {
	page    func(*page) error
	changed func(*schedulerv1.Build) error
	away    func(error) // once, whenever Forge stops to answer
	resized <-chan os.Signal
}

// page is what there is to see at one time.
type page struct {
	at     time.Time
	active []*schedulerv1.Build
	more   bool
	ended  []*schedulerv1.Build // since it was begun to look, the latest first
	away   error                // Forge does not answer; the rest is from before
}

// How much a page has at most.
const (
	watchedBuilds = 200
	watchedEnds   = 8
)

// watcher looks at what waits and runs, again and again.
type watcher struct {
	client     schedulerv1.BuildServiceClient
	repository string
	page       page
	states     map[string]string // as they were told, by id
	now        func() time.Time
	// heardOf is asked where at first nothing waits and runs; an error ends the watching.
	heardOf func(context.Context) error
}

func newWatcher(client schedulerv1.BuildServiceClient, repository string) *watcher {
	return &watcher{
		client: client, repository: repository, states: map[string]string{}, now: time.Now,
		heardOf: func(context.Context) error { return nil },
	}
}

// run looks at each tick. Once Forge has answered, it may be away for any time.
func (w *watcher) run(ctx context.Context, s screen, tick <-chan time.Time) error {
	for answered := false; ; answered = true {
		changed, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (!answered || status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded):
			return err
		case err != nil && w.page.away == nil && s.away != nil:
			s.away(err)
		case !answered && len(w.page.active) == 0:
			if err := w.heardOf(ctx); err != nil {
				return err
			}
		}
		w.page.at, w.page.away = w.now(), err
		if err := s.show(&w.page, changed); err != nil {
			return err
		}
		if err := s.until(ctx, tick, &w.page); err != nil {
			return err
		}
	}
}

// until waits for a tick, and draws the same page again where the screen gets another size.
func (s screen) until(ctx context.Context, tick <-chan time.Time, p *page) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
			return nil
		case <-s.resized:
			if err := s.page(p); err != nil {
				return err
			}
		}
	}
}

func (s screen) show(p *page, changed []*schedulerv1.Build) error {
	if s.page != nil {
		return s.page(p)
	}
	for _, b := range changed {
		if err := s.changed(b); err != nil {
			return err
		}
	}
	return nil
}

// look returns the builds whose state is another than when it was looked last, in the
// order in which they were made.
func (w *watcher) look(ctx context.Context) (changed []*schedulerv1.Build, err error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	answer, err := w.client.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{
		Repository: w.repository, PageSize: watchedBuilds, States: []schedulerv1.Build_State{
			schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_BLOCKED,
			schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_RUNNING,
		},
	})
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, b := range answer.GetBuilds() {
		seen[b.GetId()] = true
	}
	// What is gone from the list has ended.
	for _, b := range w.page.active {
		if seen[b.GetId()] {
			continue
		}
		found, err := w.client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: b.GetId()})
		switch kind := kindOf(err); {
		case err != nil && (kind == fault.NotFound || kind == fault.Denied): // it was pruned, or is not shown any more
			continue
		case err != nil:
			return nil, err // nothing is noted yet: the next look finds the same
		case found.GetBuild().GetEndTime() == nil: // it is not among the newest
			continue
		}
		changed = append(changed, found.GetBuild())
	}
	for _, b := range changed {
		w.page.ended = append([]*schedulerv1.Build{b}, w.page.ended...)
		delete(w.states, b.GetId())
	}
	w.page.ended = w.page.ended[:min(len(w.page.ended), watchedEnds)]
	w.page.active, w.page.more = answer.GetBuilds(), answer.GetNextPageToken() != ""
	for _, b := range slices.Backward(w.page.active) {
		if state := stateLine(b); w.states[b.GetId()] != state {
			w.states[b.GetId()] = state
			changed = append(changed, b)
		}
	}
	return changed, nil
}

// watchedRow is a build in a table, its state last.
func watchedRow(out io.Writer, b *schedulerv1.Build, now time.Time) []string {
	since, until := b.GetCreateTime(), now
	if b.GetStartTime() != nil {
		since = b.GetStartTime()
	}
	if b.GetEndTime() != nil {
		until = b.GetEndTime().AsTime()
	}
	return []string{
		wording.FullName(b.GetRepository()), what(b), wording.Short(b.GetSha()), b.GetId(), max(0, until.Sub(since.AsTime())).Round(time.Second).String(),
		paint(out, colourOf(b.GetState()), stateLine(b)),
	}
}

func watchedLine(out io.Writer, b *schedulerv1.Build, now time.Time) string {
	return now.Local().Format(time.TimeOnly) + "  " + strings.Join(watchedRow(out, b, now), "  ") //nolint:gosmopolitan // people read their own clock
}

// print writes what is to be seen.
func (p *page) print(out io.Writer) {
	counts := map[schedulerv1.Build_State]int{}
	for _, b := range p.active {
		counts[b.GetState()]++
	}
	head := fmt.Sprintf("%s  %d running, %d queued, %d waiting, %d blocked", p.at.Local().Format(time.TimeOnly), //nolint:gosmopolitan // people read their own clock
		counts[schedulerv1.Build_STATE_RUNNING]+counts[schedulerv1.Build_STATE_STARTING], counts[schedulerv1.Build_STATE_QUEUED],
		counts[schedulerv1.Build_STATE_WAITING], counts[schedulerv1.Build_STATE_BLOCKED])
	if p.more {
		head += ", and more"
	}
	say := func(text string) { fmt.Fprintln(out, text) } //nolint:errcheck // out is memory
	say(paint(out, bold, head))
	if p.away != nil {
		say(paint(out, red, "No answer, trying again: "+complaint(p.away)))
	}
	say("")
	table := func(all []*schedulerv1.Build) {
		var rows [][]string
		for _, b := range all {
			rows = append(rows, watchedRow(out, b, p.at))
		}
		printTable(out, rows)
	}
	table(p.active)
	if len(p.ended) > 0 {
		say("\nEnded:")
		table(p.ended)
	}
}

var ownColours = regexp.MustCompile(`^\x1b\[(0|1|2|31|32|33)m`)

// fitted is a page cut to a screen, with what its last line is, each line of which clears
// what was there.
func fitted(text, last string, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[:min(len(lines), max(1, height-2))]
	if height > 2 {
		lines = append(lines, last)
	}
	for n, line := range lines {
		var kept strings.Builder
		for cells := 0; line != ""; {
			if own := ownColours.FindString(line); own != "" {
				kept.WriteString(own)
				line = line[len(own):]
				continue
			}
			first, size := utf8.DecodeRuneInString(line)
			if cells++; cells <= width {
				kept.WriteRune(first)
			}
			line = line[size:]
		}
		lines[n] = kept.String() + "\x1b[K"
	}
	return strings.Join(lines, "\n") + "\n"
}
