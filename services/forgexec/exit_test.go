package forgexec

import (
	"testing"
	"time"
)

func (f *forgexec) wantExit(t testing.TB, want int) {
	t.Helper()
	f.wantExitWithin(t, soon, want)
}

// wantExitWithin is for what takes its time on a busy machine.
func (f *forgexec) wantExitWithin(t testing.TB, patience time.Duration, want int) {
	t.Helper()
	select {
	case code := <-f.exited:
		f.exited <- code
		if code != want {
			t.Errorf("forgexec: exit code %d, want %d; it said:\n%s", code, want, f.stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("forgexec does not end")
	}
}
