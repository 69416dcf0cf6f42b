package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

// Level is how bad a finding is.
type Level string

// The levels. What is broken keeps Forge from its work; a warning is something that
// somebody may want, or that will break.
const (
	Fine    Level = "fine"
	Warning Level = "warning"
	Broken  Level = "broken"
	Skipped Level = "skipped" // something else has to be mended first
)

// Finding is what one check has found.
type Finding struct {
	Group string `json:"group"`
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Deps are what a Forge is told, and who looks.
type Deps struct {
	Settings wire.Settings
	Siblings settings.Siblings
	// Apart: the services run apart, each at its address.
	Apart bool
	Log   *slog.Logger
	Now   func() time.Time
	// Pause is how long to wait before something is looked at again. Default: half a
	// second.
	Pause time.Duration
}

// check is one look at something.
type check struct {
	group  string
	within time.Duration
	look   func(context.Context, *report)
}

// report takes what a check finds.
type report struct {
	group string

	mu       sync.Mutex // guards all below
	findings []Finding
	closed   bool
}

func (r *report) add(level Level, check, text, fix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.findings = append(r.findings, Finding{r.group, check, level, text, fix})
	}
}

func (r *report) finef(check, format string, args ...any) {
	r.add(Fine, check, fmt.Sprintf(format, args...), "")
}

func (r *report) warn(check, text, fix string)   { r.add(Warning, check, text, fix) }
func (r *report) broken(check, text, fix string) { r.add(Broken, check, text, fix) }
func (r *report) skip(check, text string)        { r.add(Skipped, check, text, "") }

// doctor is one examination.
type doctor struct {
	Deps

	runs bool // a Forge serves gRPC here
}

const (
	soon     = 10 * time.Second
	patience = 45 * time.Second
)

// Examine looks at everything, and returns what was found, group by group.
func Examine(ctx context.Context, deps Deps) []Finding {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Pause == 0 {
		deps.Pause = 500 * time.Millisecond
	}
	d := &doctor{Deps: deps}
	d.runs = d.Settings.Certificate.Health(ctx, d.Settings.GRPCAddress, false) == nil
	checks := []check{
		{"settings", soon, d.settings},
		{"GitHub", patience, d.github},
		{"network", soon, d.ports},
		{"network", soon, d.rooms},
		{"network", 2 * soon, d.publicURL},
		{"network", soon, d.certificates},
		{"storage", soon, d.database},
		{"storage", 2 * soon, d.blobs},
		{"storage", soon, d.disk},
		{"builds", soon, d.git},
		{"builds", patience, d.engine},
	}
	reports := make([]*report, len(checks))
	var all sync.WaitGroup
	for n, c := range checks {
		reports[n] = &report{group: c.group}
		all.Go(func() { c.run(ctx, reports[n]) })
	}
	all.Wait()
	var found []Finding
	hide := hider(deps.Settings)
	for _, r := range reports {
		for _, f := range r.findings {
			f.Text, f.Fix = hide(f.Text), hide(f.Fix)
			found = append(found, f)
		}
	}
	return found
}

// run lets a check look for as long as it may. One that does not heed the end of its
// time is left behind, and what it finds then counts for nothing.
func (c check) run(ctx context.Context, r *report) {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.look(ctx, r)
	}()
	select {
	case <-done:
	case <-time.After(c.within + time.Second):
		r.broken(c.group, fmt.Sprintf("no answer within %v", c.within), "see what of it hangs; the rest of this group was not looked at")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// wait pauses, and reports whether there is time left.
func (d *doctor) wait(ctx context.Context) bool {
	timer := time.NewTimer(d.Pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// plainNetwork is a network's error without the words around it.
func plainNetwork(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Error()
	}
	return err.Error()
}
