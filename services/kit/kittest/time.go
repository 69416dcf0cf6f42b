package kittest

import (
	"sync"
	"testing"
	"time"
)

// Clock is a clock that stands still until the test moves it. Its Now fits a
// room's Deps.Now.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock is a clock that shows the given time.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now is the time the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock on.
func (c *Clock) Advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// Eventually asks holds every few milliseconds until it returns nil, and fails
// the test with its last error when that takes longer than within.
func Eventually(t testing.TB, within time.Duration, holds func() error) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %v", within, err)
		case <-tick.C:
		}
	}
}
