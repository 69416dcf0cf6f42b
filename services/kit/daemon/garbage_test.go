package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageIsBoundedWhereMuchIsHeld(t *testing.T) {
	for used, want := range map[uint64]int{0: 100, 10 << 20: 100, 40 << 20: 100, 80 << 20: 50, 160 << 20: 25, 10 << 30: 25} {
		if got := garbagePercent(used); got != want {
			t.Errorf("with %d MiB used memory may grow by %d %%, want %d %%", used>>20, got, want)
		}
	}
}

// percent is what GOGC is now.
func percent() int {
	now := debug.SetGCPercent(100)
	debug.SetGCPercent(now)
	return now
}

func TestAProcessThatHoldsMuchCollectsGarbageEarlier(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "")
	}
	much := make([]byte, 128<<20)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- BoundGarbage(ctx) }()
		debug.FreeOSMemory() // counts what is alive
		time.Sleep(2 * garbageEvery)
		if got := percent(); got > 50 {
			t.Errorf("with %d MiB used memory may grow by %d %%", len(much)>>20, got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	runtime.KeepAlive(much)
	if got := percent(); got != 100 {
		t.Errorf("afterwards memory may grow by %d %%", got)
	}
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "1GiB")
		if err := BoundGarbage(t.Context()); err != nil {
			t.Errorf("with %s: %v", name, err)
		}
		t.Setenv(name, "")
	}
}
