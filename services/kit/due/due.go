// Package due runs the work that rows of a database stand for. A row is work
// with a due time, an attempt count and a lease: Claim leases the rows that are
// due, Work settles one of them. A row whose worker died is claimed again once
// its lease is over, so Work is at least once; one whose Work takes its time has
// its lease renewed meanwhile. Where a renewal finds that the row is not to be worked
// on any more, the context of its Work ends.
package due

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

// Lease is how long a claimed row is left to its worker: as short as people may
// wait for what a killed process was doing, and long enough for a renewal that
// meets a slow disk.
const Lease = 15 * time.Second

// ErrOver and ErrStopped are causes for which the context of Work ends.
var (
	// ErrOver is what Renew returns for a row that is not to be worked on any more.
	ErrOver = errors.New("it is not to be done any more")
	// ErrStopped: Run was told to stop, and Drain is over.
	ErrStopped = errors.New("this process stops")
)

const (
	renewEvery = Lease / 3

	defaultPoll  = time.Second
	defaultDrain = 5 * time.Second

	claimRetryFirst = 50 * time.Millisecond
	claimRetryMost  = 5 * time.Second
)

// Loop claims rows and hands them to its workers. Name, Claim and Work are
// needed; the fields stay as they are once Run or Wake was called.
type Loop[R any] struct {
	// Name says in the log which loop speaks.
	Name string
	// Workers is how many rows are worked on at once; 0 for one.
	Workers int
	// Batch is how many workers are free before Claim is asked for more; 0 for
	// one. Where work is short a claim then serves several rows.
	Batch int
	// Poll is how often Claim is asked when nobody wakes the loop; 0 for a second.
	Poll time.Duration
	// Drain is how long Work may go on once Run was told to stop, before its
	// context ends; 0 for 5 seconds.
	Drain time.Duration
	Log   *slog.Logger

	// Claim leases the rows that are due, at most limit of them.
	Claim func(ctx context.Context, limit int) ([]R, error)
	// Renew has the lease of a row last for another Lease. It is asked every now
	// and then while Work goes on, also just after that has settled the row; nil
	// where the lease outlives any Work. ErrOver ends the context of Work.
	Renew func(ctx context.Context, row R) error
	// Work settles its row: done, due again, or kept for a person.
	Work func(ctx context.Context, row R)

	once sync.Once
	wake chan struct{}
}

// Wake has Claim asked at once, or as soon as a worker is free. It never blocks,
// and several calls may become one.
func (l *Loop[R]) Wake() {
	l.prepare()
	select {
	case l.wake <- struct{}{}:
	default: // a wake-up that nobody has seen yet says the same
	}
}

func (l *Loop[R]) prepare() {
	l.once.Do(func() { l.wake = make(chan struct{}, 1) })
}

// Run works until ctx ends, then waits for the workers and returns nil.
func (l *Loop[R]) Run(ctx context.Context) error {
	l.prepare()
	working, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	var (
		workers = max(l.Workers, 1)
		batch   = min(max(l.Batch, 1), workers)
		freed   = make(chan struct{}, workers)
		busy    int
		ask     = true // Claim is to be called as soon as a worker is free
		errs    int    // failed calls of Claim in a row
		timer   = time.NewTimer(l.poll())
	)
	defer timer.Stop()
	for ctx.Err() == nil {
		if free := workers - busy; ask && free >= batch {
			rows, err := l.Claim(ctx, free)
			ask = len(rows) >= free // there may be more
			pause := l.poll()
			if err != nil && ctx.Err() == nil {
				errs++
				pause = Backoff(errs, claimRetryFirst, claimRetryMost, rand.Float64)
				l.log().WarnContext(ctx, "claim failed", "loop", l.Name, "retry_in", pause, "error", err)
			} else {
				errs = 0
			}
			timer.Reset(pause)
			for _, row := range rows {
				busy++
				go func() {
					defer func() { freed <- struct{}{} }()
					l.work(working, row)
				}()
			}
			continue
		}
		wake := l.wake
		if errs > 0 {
			wake = nil // the pause after an error is not cut short
		}
		select {
		case <-ctx.Done():
		case <-wake:
			ask = true
		case <-timer.C:
			ask = true
		case <-freed:
			busy--
		}
	}
	defer time.AfterFunc(cmp.Or(l.Drain, defaultDrain), func() { abandon(ErrStopped) }).Stop()
	for ; busy > 0; busy-- {
		<-freed
	}
	return nil
}

func (l *Loop[R]) work(ctx context.Context, row R) {
	defer func() {
		if cause := recover(); cause != nil {
			l.log().ErrorContext(ctx, "work panicked; its row is due again when the lease is over",
				"loop", l.Name, "panic", cause, "stack", string(debug.Stack()))
		}
	}()
	var renewing sync.WaitGroup
	defer renewing.Wait()
	working, end := context.WithCancelCause(ctx)
	defer end(nil)
	if l.Renew != nil {
		renewing.Go(func() { l.renew(working, end, row) })
	}
	l.Work(working, row)
}

func (l *Loop[R]) renew(ctx context.Context, end context.CancelCauseFunc, row R) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			switch err := l.Renew(ctx, row); {
			case errors.Is(err, ErrOver):
				end(ErrOver)
			case err != nil && ctx.Err() == nil:
				l.log().WarnContext(ctx, "lease not renewed", "loop", l.Name, "error", err)
			}
		}
	}
}

func (l *Loop[R]) poll() time.Duration { return cmp.Or(l.Poll, defaultPoll) }

func (l *Loop[R]) log() *slog.Logger { return cmp.Or(l.Log, slog.New(slog.DiscardHandler)) }

// Backoff is how long to wait after the given failed attempt, the first being 1:
// first, doubled each time up to most, of which a random half is taken off so
// that many rows that failed together do not come back together. random gives
// numbers in [0, 1).
func Backoff(attempt int, first, most time.Duration, random func() float64) time.Duration {
	whole := min(float64(most), math.Ldexp(float64(first), max(attempt, 1)-1))
	return time.Duration(whole * (1 - random()/2))
}
