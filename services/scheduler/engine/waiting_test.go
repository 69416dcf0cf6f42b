package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

func TestWaitingSaysEachReasonOnceAndSeldom(t *testing.T) {
	clock := kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	var said []string
	w := engine.NewWaiting(engine.Spec{Say: func(line string) { said = append(said, line) }}, clock.Now)
	// Each look is a second after the one before.
	looks := func(times int, reason func(n int) (string, []string)) {
		for n := range times {
			text, machines := reason(n)
			w.For(text, machines...)
			clock.Advance(time.Second)
		}
	}
	same := func(text string) func(int) (string, []string) {
		return func(int) (string, []string) { return text, nil }
	}
	looks(1, same("over at once"))
	looks(60, func(n int) (string, []string) {
		return fmt.Sprintf("no machine has 4 CPUs free (%d machines, %d.5 are busy)", n, n), nil
	})
	looks(60, func(n int) (string, []string) {
		name := []string{"worker-1", "worker-b"}[n%2]
		return name + " could not pull alpine:3", []string{name, ""}
	})
	looks(5, same("the registry is away"))
	looks(31, same("the leader changes"))
	want := []string{
		"waits: no machine has 4 CPUs free (2 machines, 2.5 are busy)",
		"waits: worker-1 could not pull alpine:3",
		"waits: the registry is away",
		"waits: the leader changes",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	if got := w.Reason(); got != "the leader changes" {
		t.Errorf("reason %q", got)
	}
	err := w.Err(context.Canceled)
	if broken, ok := errors.AsType[*engine.WaitError](err); !ok || broken.Reason != "the leader changes" || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestWaitingForNothingSaysNothing(t *testing.T) {
	var none engine.Waiting
	none.For("a machine")
	if none.Reason() != "" {
		t.Error("the zero value has a reason")
	}
	engine.NewWaiting(engine.Spec{}, nil).For("a machine")
	if got := none.Err(context.Canceled).Error(); got != "broken off while waiting: context canceled" {
		t.Errorf("error %q", got)
	}
}
