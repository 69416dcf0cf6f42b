package attempt

import (
	"context"
	"fmt"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// sweepOften looks after attempts whose end nobody reports, at once and then
// with every heartbeat.
func (s *Service) sweepOften(ctx context.Context) error {
	tick := time.NewTicker(s.Runners.Heartbeat)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "sweep broke off", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep ends the attempts that are overdue or whose container does not run, and
// removes containers of no attempt.
func (s *Service) Sweep(ctx context.Context) error {
	overdue, err := s.store.Overdue(ctx, s.now().Add(-2*s.Runners.Grace))
	if err != nil {
		return fmt.Errorf("overdue attempts: %w", err)
	}
	for _, id := range overdue {
		if err := s.endOverdue(ctx, id); err != nil {
			return fmt.Errorf("end overdue build %s: %w", id, err)
		}
	}
	// The list comes before the rows: what it names and they do not is over.
	listCtx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	containers, err := s.engine.List(listCtx)
	if err != nil {
		return fmt.Errorf("list the containers of %s: %w", s.engine.Name(), err)
	}
	live, err := s.store.LiveAttempts(ctx)
	if err != nil {
		return fmt.Errorf("live attempts: %w", err)
	}
	found := map[string]engine.Container{}
	for _, c := range containers {
		found[c.Attempt] = c
	}
	for _, a := range live {
		c, there := found[a.Name()]
		delete(found, a.Name())
		if running := there && c.Running; a.Placed && !running && s.heartbeatExpired(a) {
			if err := s.endLost(ctx, a, c, there); err != nil {
				return fmt.Errorf("end lost attempt %s: %w", a.Name(), err)
			}
		}
	}
	for name := range found {
		s.removeOrphan(ctx, name)
	}
	return nil
}

// heartbeatExpired reports whether nothing was heard of an attempt for longer than a
// runner takes to attach again.
func (s *Service) heartbeatExpired(a *store.Attempt) bool {
	return s.now().Sub(a.Contact) > s.Runners.Grace
}

// endOverdue ends a build that its runner should have ended.
func (s *Service) endOverdue(ctx context.Context, id string) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, id)
		if err != nil {
			return err
		}
		a, err := t.Attempt(ctx, id, b.GetAttempt())
		if err != nil {
			return err
		}
		late := !a.Deadline.IsZero() && !a.Deadline.After(t.Now)
		switch {
		case a.Ended:
			return nil
		case !b.Cancel.Time.IsZero() && t.Now.Before(b.Cancel.Time.Add(2*s.Runners.Grace+lateTime(b))):
			return nil
		case !b.Cancel.Time.IsZero():
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, b.Cancel.Reason, b.Cancel.Message)
		case late && a.RunnerID == "":
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED,
				fmt.Sprintf("the container started, but forgexec in it did not reach Forge within %v: check FORGE_RUNNER_URL", AttachWithin))
		case late:
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_UNSPECIFIED,
				fmt.Sprintf("ran longer than %v", s.timeout(b)))
		}
		return nil
	})
}

// endLost ends an attempt whose container does not run, unless its runner was
// heard meanwhile.
func (s *Service) endLost(ctx context.Context, lost *store.Attempt, c engine.Container, there bool) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, lost.BuildID)
		if err != nil {
			return err
		}
		a, err := t.Attempt(ctx, lost.BuildID, lost.Number)
		switch {
		case err != nil:
			return err
		case a.Ended || !s.heartbeatExpired(a):
			return nil
		case there && c.Ending == engine.OutOfMemory:
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_OUT_OF_MEMORY, s.outOfMemory(b))
		case there && c.ExitCode >= 0:
			return s.lose(ctx, t, b, fmt.Sprintf("the container ended with exit code %d before its commands did", c.ExitCode))
		case there:
			return s.lose(ctx, t, b, "the container ended before its commands did")
		default:
			return s.lose(ctx, t, b, "the container is gone")
		}
	})
}

// removeOrphan removes the container of an attempt that is over. One that is
// known is removed by its row, so that it is tried until done.
func (s *Service) removeOrphan(ctx context.Context, name string) {
	id, number, ok := store.KnownAttempt(name)
	if ok {
		if _, err := store.ReadAttempt(ctx, s.store.DB.Read(), id, number, ""); err == nil {
			err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return t.StopSoon(ctx, id, number) })
			if err != nil {
				s.log.WarnContext(ctx, "orphan not removed", "attempt", name, "error", err)
			}
			return
		}
	}
	s.log.InfoContext(ctx, "container of no attempt removed", "attempt", name)
	if err := s.engine.Stop(ctx, name); err != nil {
		s.log.WarnContext(ctx, "orphan not removed", "attempt", name, "error", err)
	}
}
