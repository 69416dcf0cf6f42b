// Package gate keeps commands of images of one tier of trust from running beside those of
// another on the same BuildKit, whichever schedulers of a database have asked for them.
// They share a network, on which one could listen to another or answer in its place.
//
// A build whose commands are to run takes a place in the line before its BuildKit, which is
// rows of the database. It is let in once nobody of another tier stands before it: first
// come, first served, and who is of the same tier goes in together. A scheduler that was
// killed keeps nobody waiting, and one that hangs or is cut off lets nobody in beside
// itself:
//
//   - A place has a lease, which whoever has it renews. A build whose lease could not be
//     renewed is ended while the lease still lasts.
//   - Where a lease is over, whoever waits asks BuildKit, which alone knows what runs: the
//     place is taken away once it says that it has ended the build.
package gate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// lease is how long a place is kept for a scheduler that is not heard of.
	lease = 30 * time.Second
	// every is how often a lease is renewed, and how often who waits looks without having
	// been told of a change.
	every = 5 * time.Second
	// endAfter is how long a build goes on whose lease is not renewed. What is left of the
	// lease is for BuildKit to end it.
	endAfter = lease * 2 / 3
	// leaveWithin is how long it may take to give up a place.
	leaveWithin = 5 * time.Second
)

// Why a build is ended by Arrival.End.
var (
	errLate  = fault.New(fault.Unavailable, "the image is not built: the scheduler could not tell its database in time that the commands still run, and has stopped them")
	errTaken = fault.New(fault.Unavailable, "the image is not built: another build was let in, for its commands were taken for ended")
)

// Gate is that of one scheduler.
type Gate struct {
	store *store.Store
	log   *slog.Logger
	every time.Duration
}

// New returns the gate of a scheduler's database.
func New(s *store.Store, log *slog.Logger) *Gate { return &Gate{store: s, log: log, every: every} }

// Arrival is a build whose commands are to run.
type Arrival struct {
	// BuildKit is the daemon, under the same name whatever it is reached by.
	BuildKit string
	// Build is what BuildKit calls the build.
	Build string
	// Tier of trust.
	Tier string
	// Waits is called once before it waits.
	Waits func()
	// End ends the build, which has to leave then: it may not be inside any more.
	End func(cause error)
	// Ended reports whether BuildKit has ended a build, of whichever scheduler: nothing of
	// it runs any more.
	Ended func(ctx context.Context, build string) (bool, error)
}

// Place is a place in the line, or inside.
type Place struct {
	gate     *Gate
	of       Arrival
	stop     context.CancelFunc
	renewing sync.WaitGroup

	mu      sync.Mutex
	row     store.GatePlace
	renewed time.Time
}

// Enter waits until the commands of a build may run. Each that has entered leaves once.
func (g *Gate) Enter(ctx context.Context, a Arrival) (*Place, error) {
	changed, leave := g.store.Notifier.Subscribe(store.GateTopic(a.BuildKit))
	defer leave()
	p := &Place{gate: g, of: a}
	inside, err := p.join(ctx)
	if err != nil {
		return nil, fmt.Errorf("gate of images: %w", err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	p.renewing.Go(func() { p.keep(renewing) })
	if inside {
		return p, nil
	}
	a.Waits()
	look := time.NewTicker(g.every)
	defer look.Stop()
	for {
		inside, err := p.look(ctx)
		if inside {
			return p, nil
		}
		if err != nil && ctx.Err() == nil {
			g.log.WarnContext(ctx, "an image's turn not looked for; tried again soon", "buildkit", a.BuildKit, "error", err)
		}
		select {
		case <-ctx.Done():
			p.Leave(ctx, true) // nothing of it has run
			return nil, ctx.Err()
		case <-changed:
		case <-look.C:
		}
	}
}

// join takes the last place, and goes in where it can.
func (p *Place) join(ctx context.Context) (inside bool, err error) {
	row := store.GatePlace{BuildKit: p.of.BuildKit, Build: p.of.Build, Tier: p.of.Tier}
	at := p.gate.store.Now()
	row.Lease = at.Add(lease)
	err = p.gate.store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
		if row.Number, err = store.JoinGate(ctx, t, row); err == nil {
			inside, err = store.EnterGate(ctx, t, row.Number, row.Lease)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	row.Inside = inside
	p.mu.Lock()
	defer p.mu.Unlock()
	p.row, p.renewed = row, at
	return inside, nil
}

// look goes in if it is the build's turn, and else takes away what keeps it waiting for
// nothing.
func (p *Place) look(ctx context.Context) (inside bool, err error) {
	row := p.standing()
	at := p.gate.store.Now()
	row.Lease = at.Add(lease)
	err = p.gate.store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
		inside, err = store.EnterGate(ctx, t, row.Number, row.Lease)
		return err
	})
	if err != nil {
		return false, err
	}
	if inside {
		row.Inside = true
		p.mu.Lock()
		defer p.mu.Unlock()
		p.row, p.renewed = row, at
		return true, nil
	}
	before, there, err := store.GateBefore(ctx, p.gate.store, row)
	if err != nil {
		return false, err
	}
	if !there { // this process hung for so long that the place was taken away
		return p.join(ctx)
	}
	return false, p.clear(ctx, before)
}

// clear takes places away whose leases are over and of whose builds nothing runs.
func (p *Place) clear(ctx context.Context, before []store.GatePlace) error {
	for _, one := range before {
		if one.Lease.After(p.gate.store.Now()) {
			continue
		}
		if one.Inside {
			ended, err := p.of.Ended(ctx, one.Build)
			if err != nil {
				return fmt.Errorf("what BuildKit does of build %s: %w", one.Build, err)
			}
			if !ended {
				p.gate.log.WarnContext(ctx, "BuildKit still runs an image's commands of which no scheduler is heard; images of other tiers wait for them", "buildkit", one.BuildKit, "build", one.Build)
				return nil
			}
		}
		if err := p.gate.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return store.TakeGatePlace(ctx, t, one) }); err != nil {
			return err
		}
	}
	return nil
}

// keep renews the lease until ctx ends.
func (p *Place) keep(ctx context.Context) {
	tick := time.NewTicker(p.gate.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.renew(ctx)
		}
	}
}

// renew renews the lease once, and ends the build where it is not to go on. It counts from
// before it asks: the database may answer late.
func (p *Place) renew(ctx context.Context) {
	row := p.standing()
	at := p.gate.store.Now()
	asking, cancel := context.WithTimeout(ctx, p.gate.every)
	defer cancel()
	there := false
	err := p.gate.store.Write(asking, func(ctx context.Context, t *store.Tx) (err error) {
		there, err = store.RenewGate(ctx, t, row.Number, at.Add(lease))
		return err
	})
	if ctx.Err() != nil { // it leaves
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.row.Number != row.Number: // it has taken a new place meanwhile
	case err == nil && there:
		p.renewed = at
	case !p.row.Inside: // it looks by itself whether its place is there
	case err == nil:
		p.of.End(errTaken)
	case p.gate.store.Now().Sub(p.renewed) >= endAfter:
		p.of.End(errLate)
	default:
		p.gate.log.WarnContext(ctx, "an image's turn not renewed; tried again soon", "buildkit", row.BuildKit, "build", row.Build, "error", err)
	}
}

func (p *Place) standing() store.GatePlace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.row
}

// Leave lets others in. ended: BuildKit has ended the build. Else its place is kept until
// BuildKit says so to whoever waits for it.
func (p *Place) Leave(ctx context.Context, ended bool) {
	p.stop()
	p.renewing.Wait()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	row := p.standing()
	err := p.gate.store.Write(leaving, func(ctx context.Context, t *store.Tx) error {
		if !ended {
			return store.LapseGate(ctx, t, row)
		}
		return store.LeaveGate(ctx, t, row)
	})
	if err != nil {
		p.gate.log.WarnContext(ctx, "an image's turn not given up; it ends with its lease", "buildkit", row.BuildKit, "build", row.Build, "error", err)
	}
}
