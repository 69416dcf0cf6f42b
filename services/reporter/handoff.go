package reporter

import (
	"context"
	"sync"
	"time"
)

// handoff passes targets from Report to the loop's workers. A report that can be
// told at once is leased with the very transaction that stores it: that is one
// commit less between a build's end and GitHub.
type handoff struct {
	mu     sync.Mutex
	open   bool // the loop runs
	slots  int  // how many more targets can be worked on at once
	leased []target
	poll   bool // the database may have something that is due

	starved bool // somebody was refused a slot
}

// begin opens the handoff for as long as the loop runs.
func (h *handoff) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open, h.slots, h.poll = true, workers, true
}

// end closes the handoff and returns what no worker has taken.
func (h *handoff) end() []target {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := h.leased
	h.open, h.slots, h.leased = false, 0, nil
	return left
}

// reserveSlot keeps a worker for a target, which is then put, or its slot freed.
func (h *handoff) reserveSlot() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open || h.slots <= 0 {
		h.starved = true
		return false
	}
	h.slots--
	return true
}

// freeSlot gives a worker back, and reports whether somebody waits for one.
func (h *handoff) freeSlot() (awaited bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slots++
	awaited, h.starved = h.starved, false
	return awaited
}

// put hands targets over whose slots are reserved. It returns those that came
// too late.
func (h *handoff) put(leased []target) (late []target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return leased
	}
	h.leased = append(h.leased, leased...)
	return nil
}

// take returns what was handed over, and whether to poll the database as well:
// when asked to, and when there was nothing else to wake up for.
func (h *handoff) take(most int) (leased []target, poll bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(most, len(h.leased))
	leased, h.leased = h.leased[:n:n], h.leased[n:]
	poll = h.poll || n == 0
	h.poll = false
	return leased, poll
}

// askToPoll has the next take poll the database.
func (h *handoff) askToPoll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll = true
}

// wake has the loop poll the database.
func (s *Service) wake() {
	s.handoff.askToPoll()
	s.loop.Wake()
}

// claim takes what was handed over, and leases what else is due and may be told
// now.
func (s *Service) claim(ctx context.Context, limit int) ([]target, error) {
	leased, poll := s.handoff.take(limit)
	if !poll {
		return leased, nil
	}
	now, nextCall := s.deps.Now(), time.Time{}
	var reserved []target
	claimed, err := s.store.claim(ctx, limit-len(leased), now, leaseUntil(now), func(t target) bool {
		if !s.handoff.reserveSlot() {
			return false
		}
		ok, retryAt := s.limiter.acquire(t.installationID, t.desired.unfinished())
		if ok {
			reserved = append(reserved, t)
			return true
		}
		s.handoff.freeSlot()
		if !retryAt.IsZero() && (nextCall.IsZero() || retryAt.Before(nextCall)) {
			nextCall = retryAt
		}
		return false
	})
	if err != nil {
		s.unlease(reserved)
		s.deps.Log.WarnContext(ctx, "claiming due targets failed; it is tried again", "error", err)
		return leased, nil
	}
	if !nextCall.IsZero() {
		s.alarm.Reset(nextCall.Sub(now))
	}
	return append(leased, claimed...), nil
}

// lease leases a target that is to be told now, where a worker is free and the
// installation may call.
func (s *Service) lease(t *target, now time.Time) (leased bool) {
	if t.due.IsZero() || t.due.After(now) || !t.lease.IsZero() || !s.handoff.reserveSlot() {
		return false
	}
	if ok, _ := s.limiter.acquire(t.installationID, t.desired.unfinished()); !ok {
		s.handoff.freeSlot()
		return false
	}
	t.lease = leaseUntil(now)
	return true
}

// unlease gives back what lease has reserved for targets that are not told after
// all.
func (s *Service) unlease(leased []target) {
	for _, t := range leased {
		s.releaseSlot(t)
	}
}

// returnLeases frees targets that were leased and not tried.
func (s *Service) returnLeases(ctx context.Context, leased []target) {
	s.unlease(leased)
	for _, one := range leased {
		_, err := s.store.finishAttempt(ctx, one, nil, func(t *target) { t.lease = time.Time{} })
		if err != nil {
			s.deps.Log.WarnContext(ctx, "freeing a target failed; it is told when its lease ends", "target", one.id, "error", err)
		}
	}
}
