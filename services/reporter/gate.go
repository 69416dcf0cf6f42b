package reporter

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// perInstallation is how many calls of one installation run at once, so that
	// one that is slow leaves workers to the others.
	perInstallation = 8
	// recovery is how many calls without a refusal halve the spacing.
	recovery = 10
	// reserve is the share of the hour's calls that is kept for final states.
	reserve = 10 // a tenth
)

// gate decides which installation may call now. GitHub counts an installation's
// calls together, so its targets wait together and not each alone: after a
// refusal nobody calls until the moment that GitHub named, and then one after
// the other, the spacing growing with each refusal and shrinking while all goes
// well. GitHub's secondary limits are not all published and change; what it
// refuses is all there is to learn them from.
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
type gate struct {
	now     func() time.Time
	spacing time.Duration // the widest

	mu     sync.Mutex
	quotas map[int64]*quota
}

// quota is what is known of an installation's limits.
type quota struct {
	busy    int  // calls that run
	crowded bool // somebody was turned away because of them

	closed  time.Time     // until when GitHub wants no call
	spacing time.Duration // between calls; 0: none needed
	next    time.Time     // when the next call may begin
	calm    int           // calls since the last refusal or change of the spacing

	limit, remaining int // of the hour that ends at reset
	reset            time.Time
}

func newGate(now func() time.Time, spacing time.Duration) *gate {
	return &gate{now: now, spacing: spacing, quotas: map[int64]*quota{}}
}

func (g *gate) of(installation int64) *quota {
	q := g.quotas[installation]
	if q == nil {
		q = &quota{}
		g.quotas[installation] = q
	}
	return q
}

// enter lets a call in, to be followed by leave, or says when to ask again; the
// zero time: once another one leaves. A state that is not final waits longer
// while calls are scarce.
func (g *gate) enter(installation int64, unfinished bool) (ok bool, again time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, q := g.now(), g.of(installation)
	again = q.closed
	if q.spacing > 0 && again.Before(q.next) {
		again = q.next
	}
	if unfinished && q.spacing > 0 {
		again = again.Add(5 * q.spacing)
	}
	if unfinished && q.limit > 0 && q.remaining < q.limit/reserve && again.Before(q.reset) {
		again = q.reset
	}
	switch {
	case now.Before(again):
		return false, again
	case q.busy >= perInstallation:
		q.crowded = true
		return false, time.Time{}
	}
	q.busy++
	if q.spacing == 0 {
		return true, time.Time{}
	}
	q.next = now.Add(q.spacing)
	if q.calm++; q.calm >= recovery {
		q.calm, q.spacing = 0, q.spacing/2
		if q.spacing < g.spacing/100 {
			q.spacing = 0
		}
	}
	return true, time.Time{}
}

// leave ends a call that was let in, and reports whether another one waits for
// that.
func (g *gate) leave(installation int64) (awaited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.of(installation)
	q.busy--
	awaited, q.crowded = q.crowded, false
	return awaited
}

// refused takes in that GitHub wants no call for some time.
func (g *gate) refused(installation int64, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q, until := g.of(installation), g.now().Add(wait)
	if g.now().Before(q.closed) { // the others that were under way tell the same
		if until.After(q.closed) {
			q.closed = until
		}
		return
	}
	q.closed, q.calm = until, 0
	q.spacing = min(max(2*q.spacing, g.spacing/10), g.spacing)
}

// scarce reports whether an installation has no calls to spare.
func (g *gate) scarce(installation int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	q, now := g.of(installation), g.now()
	return now.Before(q.closed) || q.spacing > 0 || q.limit > 0 && now.Before(q.reset) && q.remaining < q.limit/2
}

// heard takes in what an answer says of the hour's calls. Answers can overtake
// each other.
func (g *gate) heard(installation int64, header http.Header) {
	limit, _ := strconv.Atoi(header.Get("X-Ratelimit-Limit"))
	remaining, err := strconv.Atoi(header.Get("X-Ratelimit-Remaining"))
	seconds, resetErr := strconv.ParseInt(header.Get("X-Ratelimit-Reset"), 10, 64)
	if limit <= 0 || err != nil || resetErr != nil {
		return
	}
	reset := time.Unix(seconds, 0)
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.of(installation)
	if reset.Equal(q.reset) {
		remaining = min(remaining, q.remaining)
	}
	q.limit, q.remaining, q.reset = limit, remaining, reset
}

// remaining is how many calls each installation has left this hour, where that
// is known.
func (g *gate) remaining() map[int64]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := map[int64]int{}
	for installation, q := range g.quotas {
		switch {
		case q.limit == 0:
		case g.now().Before(q.reset):
			left[installation] = q.remaining
		default:
			left[installation] = q.limit
		}
	}
	return left
}
