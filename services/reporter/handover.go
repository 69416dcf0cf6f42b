package reporter

import (
	"context"
	"sync"
	"time"
)

// handover passes targets from Report to the loop's workers. A report that can
// be told at once is leased with the very transaction that stores it: that is
// one commit less between a build's end and GitHub.
type handover struct {
	mu     sync.Mutex
	open   bool // the loop runs
	room   int  // how many more can be worked on at once
	leased []target
	look   bool // there is something in the database to look for

	crowded bool // somebody found no room
}

// begin opens it for as long as the loop runs.
func (h *handover) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open, h.room, h.look = true, workers, true
}

// end closes it and returns what nobody has taken.
func (h *handover) end() []target {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := h.leased
	h.open, h.room, h.leased = false, 0, nil
	return left
}

// reserve keeps a worker for a target, to be put or freed.
func (h *handover) reserve() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open || h.room <= 0 {
		h.crowded = true
		return false
	}
	h.room--
	return true
}

// free gives a worker back, and reports whether somebody waits for that.
func (h *handover) free() (awaited bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.room++
	awaited, h.crowded = h.crowded, false
	return awaited
}

// put hands targets over whose workers are reserved; it returns those that came
// too late.
func (h *handover) put(leased []target) (late []target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return leased
	}
	h.leased = append(h.leased, leased...)
	return nil
}

// take is what was handed over, and whether to look into the database as well:
// when asked to, and when there was nothing else to wake up for.
func (h *handover) take(most int) (leased []target, look bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(most, len(h.leased))
	leased, h.leased = h.leased[:n:n], h.leased[n:]
	look = h.look || n == 0
	h.look = false
	return leased, look
}

// wake has the loop look into the database.
func (s *Service) wake() {
	s.handover.mu.Lock()
	s.handover.look = true
	s.handover.mu.Unlock()
	s.loop.Wake()
}

// lease leases a target that is to be told now, where a worker is free and the
// installation may call.
func (s *Service) lease(t *target, now time.Time) (leased bool) {
	if t.due.IsZero() || t.due.After(now) || !t.lease.IsZero() || !s.handover.reserve() {
		return false
	}
	if ok, _ := s.gate.enter(t.installationID, t.want.unfinished()); !ok {
		s.handover.free()
		return false
	}
	t.lease = leaseUntil(now)
	return true
}

// unlease gives back what lease took for targets that are not told after all.
func (s *Service) unlease(leased []target) {
	for _, t := range leased {
		awaited := s.gate.leave(t.installationID)
		if s.handover.free() || awaited {
			s.wake()
		}
	}
}

// giveUp frees targets that were leased and not tried.
func (s *Service) giveUp(ctx context.Context, leased []target) {
	s.unlease(leased)
	for _, one := range leased {
		_, err := s.store.settle(ctx, one, nil, func(t *target) { t.lease = time.Time{} })
		if err != nil {
			s.deps.Log.WarnContext(ctx, "target not freed; it is told when its lease is over", "target", one.id, "error", err)
		}
	}
}
