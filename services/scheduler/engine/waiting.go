package engine

import (
	"cmp"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	// waitLasts is how long Start waits for one thing before that is said: most waits
	// are over at once.
	waitLasts = 2 * time.Second
	// waitEvery is how often at most a line tells of a wait.
	waitEvery = 30 * time.Second
)

// Waiting tells people what a Start waits for: each reason once it has lasted, and
// no reason again that differs from the last in its numbers or in names of machines
// alone. The zero value says nothing; its methods may be called at once by many.
type Waiting struct {
	spec   Spec
	now    func() time.Time
	digits *regexp.Regexp

	mu          sync.Mutex
	reason      string // the newest, as it was given
	kind        string // without what may differ
	told        string // the kind that was said last
	since, said time.Time
}

// NewWaiting tells of one Start. now may be nil.
func NewWaiting(spec Spec, now func() time.Time) *Waiting {
	if now == nil {
		now = time.Now
	}
	return &Waiting{spec: spec, now: now, digits: regexp.MustCompile(`\d+(\.\d+)?`)}
}

// For notes what Start waits for now, and says so where that is due. It is called
// with each look, however often. machines are the names in the reason that may
// change while it stays the same.
func (w *Waiting) For(reason string, machines ...string) {
	if w.digits == nil {
		return
	}
	w.spec.WaitsFor(WaitMachine, reason)
	kind := reason
	for _, name := range machines {
		if name != "" {
			kind = strings.ReplaceAll(kind, name, "#")
		}
	}
	kind = w.digits.ReplaceAllString(kind, "#")
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	w.reason = reason
	if kind != w.kind {
		w.kind, w.since = kind, now
	}
	if kind == w.told || now.Sub(w.since) < waitLasts || (!w.said.IsZero() && now.Sub(w.said) < waitEvery) {
		return
	}
	w.told, w.said = kind, now
	w.spec.Sayf("waits: %s", reason)
}

// Reason is what Start waits for, or has waited for last; "" where it never waited.
func (w *Waiting) Reason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// Err is what Start returns when its context has ended with err while it waited.
func (w *Waiting) Err(err error) error {
	return &WaitError{Reason: w.Reason(), Err: err}
}

// WaitError is an error of Start that was broken off while it waited.
type WaitError struct {
	Reason string // what for, for people; may be empty
	Err    error
}

func (w *WaitError) Error() string {
	return "broken off while waiting: " + cmp.Or(w.Reason, w.Err.Error())
}

func (w *WaitError) Unwrap() error { return w.Err }
