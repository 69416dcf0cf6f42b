package attempt

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// stopTimeout bounds one Stop of the engine.
const stopTimeout = 30 * time.Second

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
		s.metrics.engineFailed(ctx, s.engine.Name(), "stop")
		wait := due.Backoff(c.Tries+1, startRetryFirst, startRetryMost, rand.Float64)
		again = s.now().Add(wait)
		s.log.WarnContext(ctx, "container not stopped", "build", c.BuildID, "attempt", c.Attempt, "retry_in", wait, "error", err)
	}
	ctx, done := settling(ctx)
	defer done()
	if err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return s.settleStop(ctx, t, c, again) }); err != nil {
		s.log.WarnContext(ctx, "stop not settled; done again when its lease is over", "build", c.BuildID, "error", err)
	}
}

// settleStop stores what the engine answered. With its container gone a deploy
// that has ended leaves its environment.
func (s *Service) settleStop(ctx context.Context, t *store.Tx, c store.Stop, again time.Time) error {
	whole := store.WholeID(c.BuildID)
	if whole != c.BuildID { // of two containers that go at once, the later sees that both are gone
		if _, err := t.Build(ctx, whole); err != nil {
			return err
		}
	}
	if err := c.Settle(ctx, t, again); err != nil || !again.IsZero() {
		return err
	}
	return s.environments.Leave(ctx, t, whole)
}
