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
	// recoverAfter is how many calls without a refusal halve the spacing.
	recoverAfter = 10
	// reservedShare is the share of the hour's calls that is kept for final states.
	reservedShare = 10 // a tenth
)

// limiter decides which installation may call now. GitHub counts an installation's
// calls together, so its targets wait together and not each alone: after a
// refusal nobody calls until the moment that GitHub named, and then one after
// the other, the spacing growing with each refusal and shrinking while all goes
// well. GitHub's secondary limits are not all published and change; what it
// refuses is all there is to learn them from.
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
type limiter struct {
	now     func() time.Time
	spacing time.Duration // the widest

	mu     sync.Mutex
	quotas map[int64]*quota
}

// quota is what is known of an installation's limits.
type quota struct {
	running int  // calls that run
	awaited bool // somebody was turned away because of them

	closedUntil time.Time     // GitHub wants no call before
	spacing     time.Duration // between calls; 0: none needed
	nextCall    time.Time     // when the next call may begin
	callsSince  int           // since the last refusal or change of the spacing

	failures int // attempts that failed since the last one that did not

	limit, remaining int // of the hour that ends at reset
	reset            time.Time
}

func newLimiter(now func() time.Time, spacing time.Duration) *limiter {
	return &limiter{now: now, spacing: spacing, quotas: map[int64]*quota{}}
}

func (l *limiter) quotaOf(installation int64) *quota {
	q := l.quotas[installation]
	if q == nil {
		q = &quota{}
		l.quotas[installation] = q
	}
	return q
}

// acquire lets a call begin, to be followed by release, or says when to ask
// again; the zero time: once another call has ended. A state that is not final
// waits longer while calls are scarce.
func (l *limiter) acquire(installation int64, unfinished bool) (ok bool, retryAt time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, q := l.now(), l.quotaOf(installation)
	retryAt = q.closedUntil
	if q.spacing > 0 && retryAt.Before(q.nextCall) {
		retryAt = q.nextCall
	}
	if unfinished && q.spacing > 0 {
		retryAt = retryAt.Add(5 * q.spacing)
	}
	if unfinished && q.limit > 0 && q.remaining < q.limit/reservedShare && retryAt.Before(q.reset) {
		retryAt = q.reset
	}
	switch {
	case now.Before(retryAt):
		return false, retryAt
	case q.running >= perInstallation:
		q.awaited = true
		return false, time.Time{}
	}
	q.running++
	if q.spacing == 0 {
		return true, time.Time{}
	}
	q.nextCall = now.Add(q.spacing)
	if q.callsSince++; q.callsSince >= recoverAfter {
		q.callsSince, q.spacing = 0, q.spacing/2
		if q.spacing < l.spacing/100 {
			q.spacing = 0
		}
	}
	return true, time.Time{}
}

// release ends a call that was let begin, and reports whether another one waits
// for that.
func (l *limiter) release(installation int64) (awaited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.quotaOf(installation)
	q.running--
	awaited, q.awaited = q.awaited, false
	return awaited
}

// recordRefusal takes in that GitHub wants no call for some time.
func (l *limiter) recordRefusal(installation int64, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, until := l.quotaOf(installation), l.now().Add(wait)
	if l.now().Before(q.closedUntil) { // the others that ran meanwhile are refused for the same reason
		if until.After(q.closedUntil) {
			q.closedUntil = until
		}
		return
	}
	q.closedUntil, q.callsSince = until, 0
	q.spacing = min(max(2*q.spacing, l.spacing/10), l.spacing)
}

// recordAttempt takes in whether an attempt failed through nobody's fault, and
// returns how many of the installation have failed in a row.
func (l *limiter) recordAttempt(installation int64, failed bool) (failures int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.quotaOf(installation)
	if q.failures++; !failed {
		q.failures = 0
	}
	return q.failures
}

// scarce reports whether an installation has no calls to spare.
func (l *limiter) scarce(installation int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, now := l.quotaOf(installation), l.now()
	return now.Before(q.closedUntil) || q.spacing > 0 || q.limit > 0 && now.Before(q.reset) && q.remaining < q.limit/2
}

// recordQuota takes in what a response says of the hour's calls. Responses can
// overtake each other.
func (l *limiter) recordQuota(installation int64, header http.Header) {
	limit, _ := strconv.Atoi(header.Get("X-Ratelimit-Limit"))
	remaining, err := strconv.Atoi(header.Get("X-Ratelimit-Remaining"))
	seconds, resetErr := strconv.ParseInt(header.Get("X-Ratelimit-Reset"), 10, 64)
	if limit <= 0 || err != nil || resetErr != nil {
		return
	}
	reset := time.Unix(seconds, 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.quotaOf(installation)
	if reset.Equal(q.reset) {
		remaining = min(remaining, q.remaining)
	}
	q.limit, q.remaining, q.reset = limit, remaining, reset
}

// remainingCalls is how many calls each installation has left this hour, where
// that is known.
func (l *limiter) remainingCalls() map[int64]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := map[int64]int{}
	for installation, q := range l.quotas {
		switch {
		case q.limit == 0:
		case l.now().Before(q.reset):
			left[installation] = q.remaining
		default:
			left[installation] = q.limit
		}
	}
	return left
}
