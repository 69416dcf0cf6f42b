package forgexec

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"
)

func TestHeldProcessWaitsToBeToldAndNeverEndsWithZero(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if got := hold(t.Context(), "", exitRefused, log); got != exitRefused {
		t.Errorf("not held: exit %d", got)
	}
	if got := hold(t.Context(), "1ms", exitReported, log); got != exitHeld {
		t.Errorf("for a moment: exit %d", got)
	}
	if got := hold(t.Context(), "soon", exitFailed, log); got != exitHeld+exitFailed {
		t.Errorf("for no time that can be read: exit %d", got)
	}
	told, forget := untilTold(t.Context()) // so that the signal does not end this test
	defer forget()
	ended := make(chan int)
	go func() { ended <- hold(context.WithoutCancel(t.Context()), "1h", exitRefused, log) }()
	for { // until it listens, the signal goes nowhere
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-told.Done()
		select {
		case got := <-ended:
			if got != exitHeld+exitRefused {
				t.Errorf("exit %d", got)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
