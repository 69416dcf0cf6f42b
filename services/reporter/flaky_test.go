package reporter

import (
	"testing"
	"time"
)

// In an outage the pauses grow as ever; bad luck of one target alone does not
// hold it back.
func TestPausesGrowInAnOutageAlone(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 32 * time.Second, 1: 2 * time.Second, outageFailures - 1: 2 * time.Second, outageFailures: 32 * time.Second} {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		one := target{version: 1, desired: display{state: "success"}, attempts: 5}
		one.fail(1, failure{state: failing, failures: failures, text: "502"}, now, func() float64 { return 0 })
		if pause := one.due.Sub(now); pause != want {
			t.Errorf("after %d failures of the installation a pause of %v, want %v", failures, pause, want)
		}
	}
	l, _ := newTestLimiter()
	l.recordAttempt(1, true)
	if n := l.recordAttempt(1, true); n != 2 {
		t.Errorf("%d failures in a row, want 2", n)
	}
	if l.recordAttempt(1, false); l.recordAttempt(1, true) != 1 || l.recordAttempt(2, true) != 1 {
		t.Error("failures of before, or of another installation, count")
	}
}
