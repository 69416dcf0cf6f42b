package image

import (
	"context"
	"sync"
)

// gate keeps the commands of one tier of trust from running beside those of another: they
// share a network, on which one could listen to another or answer in its place. It is
// first come, first served.
type gate struct {
	mu      sync.Mutex
	tier    string
	inside  int
	waiting []*arrival
}

type arrival struct {
	tier string
	let  chan struct{} // closed once it is inside
}

// enter waits until no other tier is inside, and none has come before; it calls waits
// before. Each that has entered leaves once.
func (g *gate) enter(ctx context.Context, tier string, waits func()) error {
	g.mu.Lock()
	one := &arrival{tier, make(chan struct{})}
	g.waiting = append(g.waiting, one)
	g.admit()
	g.mu.Unlock()
	select {
	case <-one.let:
		return nil
	default:
		waits()
	}
	select {
	case <-one.let:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for n, other := range g.waiting {
		if other == one {
			g.waiting = append(g.waiting[:n:n], g.waiting[n+1:]...)
			g.admit() // who came after may have waited for this one alone
			return ctx.Err()
		}
	}
	return nil // it was let in meanwhile
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.admit()
}

// admit lets in who is next.
func (g *gate) admit() {
	for len(g.waiting) > 0 && (g.inside == 0 || g.waiting[0].tier == g.tier) {
		g.tier = g.waiting[0].tier
		g.inside++
		close(g.waiting[0].let)
		g.waiting = g.waiting[1:]
	}
}
