package attempt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// stopTimeout bounds one Stop of the engine.
const stopTimeout = 30 * time.Second

// stopping is what follows for a build and its environment once the engine was asked to
// remove a container.
type stopping struct{ *Service }

// Stop removes the container of an attempt that has ended, for as long as it
// takes.
func (s *Service) Stop(ctx context.Context, c store.Stop) {
	call, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := brokenOff(ctx, s.engine.Stop(call, store.AttemptName(c.BuildID, c.Attempt)))
	var again time.Time
	switch {
	case is[brokenOffError](err):
		again = s.now()
		c.Tries--
		s.log.InfoContext(ctx, "stop broken off", "build", c.BuildID, "attempt", c.Attempt, "because", err)
	case err != nil:
		s.metrics.atFault(ctx, engineAtFault, "stop")
		wait := due.Backoff(c.Tries+1, startRetryFirst, startRetryMost, rand.Float64)
		again = s.now().Add(wait)
		s.log.WarnContext(ctx, "container not stopped", "build", c.BuildID, "attempt", c.Attempt, "retry_in", wait, "error", err)
	}
	ctx, done := settling(ctx)
	defer done()
	if err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return stopping{s}.settleStop(ctx, t, c, again, err) }); err != nil {
		s.log.WarnContext(ctx, "stop not settled; done again when its lease is over", "build", c.BuildID, "error", err)
	}
}

// heldAfter is how many Stops of a container fail before those who wait for its
// environment are told: most trouble of an engine is over by then.
const heldAfter = 4

// settleStop stores what the engine answered. With its container gone a deploy
// that has ended leaves its environment; while it cannot be removed, those who wait
// for that say so.
func (s stopping) settleStop(ctx context.Context, t *store.Tx, c store.Stop, again time.Time, answer error) error {
	whole := store.WholeID(c.BuildID)
	held := answer != nil && !is[brokenOffError](answer) && c.Tries+1 >= heldAfter
	if whole != c.BuildID || held { // of two containers that go at once, the later sees that both are gone
		b, err := t.Build(ctx, whole)
		if err != nil {
			return err
		}
		if held && b.GetEnvironment() != "" {
			if err := s.holdEnvironment(ctx, t, b, c, answer); err != nil {
				return err
			}
		}
	}
	if err := c.Settle(ctx, t, again); err != nil || !again.IsZero() {
		return err
	}
	return s.leave(ctx, t, whole)
}

// holdEnvironment says why a deploy that has ended holds its environment, until when
// its commands run at most, and what a person can do. forgexec keeps the timeout of
// its build itself, also while it is cut off.
func (s stopping) holdEnvironment(ctx context.Context, t *store.Tx, whole *store.Build, c store.Stop, answer error) error {
	of, a, err := store.BuildOf(ctx, t, c.BuildID, c.Attempt)
	if err != nil {
		return err
	}
	text := lastError(answer.Error())
	if a.Machine != "" && !strings.Contains(text, a.Machine) {
		text = "on " + a.Machine + ", " + text
	}
	if !a.Contact.IsZero() {
		until := a.Contact.Add(s.timeout(of) + s.Runners.Grace + lateTime(of))
		text += "; its commands end by " + until.UTC().Format("2006-01-02 15:04 MST") + " at the latest"
	}
	text += fmt.Sprintf("; if it is gone for good: forge environments release %s %s --force", wording.FullName(whole.GetRepository()), whole.GetEnvironment())
	return s.environments.Hold(ctx, t, whole, text)
}
