// Package daemon runs the parts of a process: started in order, each once the
// one before is ready, and stopped in reverse, each within a time limit.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Part is something that runs until its context ends. Run calls ready once
// others may rely on it. A nil return before the end is a finished job; with
// Ends it also stops all other parts.
type Part struct {
	Name string
	Run  func(ctx context.Context, ready func()) error
	Ends bool
}

// Background is a part that is ready as soon as it is started: those who need it
// can wait for it themselves, as a gRPC call does.
func Background(name string, run func(ctx context.Context) error) Part {
	return Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		ready()
		return run(ctx)
	}}
}

// Run starts the parts and stops them on SIGINT, SIGTERM, the end of ctx, an
// error of any part, or when all have finished. Each part gets grace to return
// after its context has ended; one that does not is left behind. A signal while
// stopping makes Run return at once. The first error is returned, with the part's name;
// later ones are logged.
func Run(ctx context.Context, log *slog.Logger, grace time.Duration, parts ...Part) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	p := process{log: log, grace: grace, signals: signals, exits: make(chan *run, len(parts))}
	return p.down(p.up(ctx, parts))
}

type process struct {
	log     *slog.Logger
	grace   time.Duration
	signals <-chan os.Signal
	started []*run
	exits   chan *run
}

// run is a part that was started.
type run struct {
	Part
	end   context.CancelFunc
	ready chan struct{} // closed when others may rely on it
	done  chan struct{} // closed when returned, err is set by then
	err   error
}

// up starts all parts and returns when it is time to stop, with the error that
// is the reason.
func (p *process) up(ctx context.Context, parts []Part) error {
	ready := make(chan struct{})
	close(ready) // nothing comes before the first part
	for running := len(parts); running > 0; {
		select {
		case <-ready:
			if len(p.started) == len(parts) {
				ready = nil
				continue
			}
			ready = p.start(ctx, parts[len(p.started)]).ready
		case r := <-p.exits:
			running--
			if r.err != nil || r.Ends {
				err := named(r)
				r.err = nil // down does not tell it again
				return err
			}
		case sig := <-p.signals:
			p.log.InfoContext(ctx, "stopping", "signal", sig.String())
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (p *process) start(ctx context.Context, part Part) *run {
	// The end of ctx stops the parts in order, so none may see it directly.
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{Part: part, end: end, ready: make(chan struct{}), done: make(chan struct{})}
	p.started = append(p.started, r)
	isReady := sync.OnceFunc(func() { close(r.ready) })
	go func() {
		r.err = part.Run(ctx, isReady)
		close(r.done)
		if r.err == nil {
			isReady() // a finished job need not have said so
		}
		p.exits <- r
	}()
	return r
}

// down stops what was started, last first, and returns first, else the first
// error on the way.
func (p *process) down(first error) error {
	for _, r := range slices.Backward(p.started) {
		r.end()
		var err error
		select {
		case <-r.done:
			if !errors.Is(r.err, context.Canceled) {
				err = named(r)
			}
		case <-time.After(p.grace):
			err = fmt.Errorf("%s: did not stop within %s", r.Name, p.grace)
		case sig := <-p.signals:
			return errors.Join(first, fmt.Errorf("%s: cut off while stopping (%s)", r.Name, sig))
		}
		if first == nil {
			first = err
		} else if err != nil {
			p.log.Error("stopping", "error", err)
		}
	}
	return first
}

func named(r *run) error {
	if r.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", r.Name, r.err)
}
