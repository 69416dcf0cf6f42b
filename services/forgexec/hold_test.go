package forgexec

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
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
	told, forget := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { ended <- hold(told, "1h", exitRefused, log) }()
	select {
	case got := <-ended:
		t.Fatalf("it ends without being told: exit %d", got)
	default:
	}
	forget()
	if got := <-ended; got != exitHeld+exitRefused {
		t.Errorf("exit %d", got)
	}
}

// One that is told to end while it cannot reach Forge is not held besides.
func TestHeldProcessThatWasToldAlreadyEnds(t *testing.T) {
	s := newScheduler(t, "echo ready; sleep 1000")
	f := s.forgexec(t, "FORGE_RUNNER_HOLD=1h")
	s.awaitOutput(t, "ready")
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.wantExit(t, exitHeld)
}
