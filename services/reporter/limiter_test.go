package reporter

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func newTestLimiter() (*limiter, *kittest.Clock) {
	clock := kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	return newLimiter(clock.Now, time.Second), clock
}

// calls counts the calls that an installation gets through, one after the other,
// until the clock reaches the end.
func (l *limiter) callsUntil(clock *kittest.Clock, unfinished bool, end time.Time) (n int) {
	for {
		ok, again := l.acquire(1, unfinished)
		switch {
		case ok:
			l.release(1)
			n++
		case again.After(end):
			return n
		default:
			clock.Advance(again.Sub(clock.Now()))
		}
		if n == 1000 {
			return n
		}
	}
}

func TestRefusalHoldsTheWholeInstallationBack(t *testing.T) {
	l, clock := newTestLimiter()
	l.recordRefusal(1, 17*time.Second)
	if ok, again := l.acquire(1, false); ok || !again.Equal(clock.Now().Add(17*time.Second)) {
		t.Errorf("let in: %v, or at %v", ok, again)
	}
	if ok, _ := l.acquire(2, false); !ok {
		t.Error("another installation is held back too")
	}
	clock.Advance(17 * time.Second)
	if ok, _ := l.acquire(1, false); !ok {
		t.Error("held back for longer than GitHub asked for")
	}
}

func TestRefusalsOfCallsUnderWayCountOnce(t *testing.T) {
	l, clock := newTestLimiter()
	for range 5 {
		l.recordRefusal(1, 2*time.Second)
	}
	clock.Advance(2 * time.Second)
	if n := l.callsUntil(clock, false, clock.Now().Add(500*time.Millisecond)); n < 5 {
		t.Errorf("%d calls in half a second: each refusal widened the spacing", n)
	}
}

func TestCallsAreSpacedAfterRefusalsAndRecover(t *testing.T) {
	l, clock := newTestLimiter()
	for range 6 {
		l.recordRefusal(1, time.Second)
		clock.Advance(time.Second)
	}
	if n := l.callsUntil(clock, false, clock.Now().Add(5*time.Second)); n > 6 {
		t.Errorf("%d calls in the first 5 seconds, want one a second", n)
	}
	if n := l.callsUntil(clock, false, clock.Now().Add(time.Minute)); n < 1000 {
		t.Errorf("%d calls in the minute after, want the spacing gone", n)
	}
}

func TestFinalStatesGoFirstWhenCallsAreScarce(t *testing.T) {
	l, clock := newTestLimiter()
	l.recordRefusal(1, time.Second)
	clock.Advance(time.Second)
	if ok, _ := l.acquire(1, true); ok {
		t.Error("a pending state takes the first call")
	}
	if ok, _ := l.acquire(1, false); !ok {
		t.Error("a final state does not get the first call")
	}
	l.release(1)
	clock.Advance(5 * time.Second)
	if ok, _ := l.acquire(1, true); !ok {
		t.Error("a pending state never gets a call")
	}
}

func TestLastCallsOfTheHourAreForFinalStates(t *testing.T) {
	l, clock := newTestLimiter()
	reset := clock.Now().Add(20 * time.Minute)
	header := http.Header{}
	for name, value := range map[string]string{"Limit": "5000", "Remaining": "400", "Reset": strconv.FormatInt(reset.Unix(), 10)} {
		header.Set("X-Ratelimit-"+name, value)
	}
	l.recordQuota(1, header)
	if ok, again := l.acquire(1, true); ok || !again.Equal(reset) {
		t.Errorf("a pending state is let in: %v, or at %v", ok, again)
	}
	if ok, _ := l.acquire(1, false); !ok {
		t.Error("a final state is held back")
	}
	header.Set("X-Ratelimit-Remaining", "4000") // overtaken by the answer before
	l.recordQuota(1, header)
	if left := l.remainingCalls()[1]; left != 400 {
		t.Errorf("%d calls remain, want 400", left)
	}
	clock.Advance(20 * time.Minute)
	if ok, _ := l.acquire(1, true); !ok || l.remainingCalls()[1] != 5000 {
		t.Errorf("the new hour has not begun: %v", l.remainingCalls())
	}
}

func TestSlowInstallationLeavesWorkersToOthers(t *testing.T) {
	l, _ := newTestLimiter()
	for range perInstallation {
		l.acquire(1, false)
	}
	if ok, again := l.acquire(1, false); ok || !again.IsZero() {
		t.Errorf("one more is let in: %v, or at %v", ok, again)
	}
	if ok, _ := l.acquire(2, false); !ok {
		t.Error("another installation has to wait")
	}
	if !l.release(1) || l.release(1) {
		t.Error("who was turned away is to be told once")
	}
}

// The clock is real here, and GitHub's is 20 times as fast.
func TestMoreThanGitHubAllowsIsToldAllTheSame(t *testing.T) {
	w := newWorldWithin(t, githubsim.Limits{ContentMinute: 5, Points: 900, Speed: 20})
	w.adjust = func(d *Deps) { d.Now, d.Spacing = time.Now, time.Second/20 }
	s := w.reporter(sqlite(t))
	commits := w.commits(10)
	for sha := range commits {
		for version, b := range []bool{false, true} {
			one := like(w.build(queued), queued)
			if b {
				one = like(w.build(good), good)
			}
			one.Sha = sha
			w.report(s, int64(version+1), one)
		}
	}
	w.background(s.Run)
	w.allRight(s, commits)
	refused := 0
	for _, c := range w.sim.Calls() {
		if c.Status == http.StatusForbidden {
			refused++
		}
	}
	// At most those under way each time that a minute's worth is used up.
	if refused == 0 || refused > 6*perInstallation {
		t.Errorf("%d calls refused", refused)
	}
}
