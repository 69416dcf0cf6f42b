package scheduler

import (
	"context"
	"fmt"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// sweepOften looks after attempts whose end nobody reports, at once and then
// with every heartbeat.
func (s *Service) sweepOften(ctx context.Context) error {
	tick := time.NewTicker(s.Heartbeat)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "sweep broke off", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) sweep(ctx context.Context) error {
	overdue, err := s.store.overdue(ctx, s.Now().Add(-2*s.Grace))
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
	containers, err := s.Engine.List(listCtx)
	if err != nil {
		return fmt.Errorf("list the containers of %s: %w", s.Engine.Name(), err)
	}
	live, err := s.store.liveAttempts(ctx)
	if err != nil {
		return fmt.Errorf("live attempts: %w", err)
	}
	found := map[string]engine.Container{}
	for _, c := range containers {
		found[c.Attempt] = c
	}
	for _, a := range live {
		c, there := found[a.name()]
		delete(found, a.name())
		if running := there && c.Running; a.placed && !running && s.silent(a) {
			if err := s.endLost(ctx, a, c, there); err != nil {
				return fmt.Errorf("end lost attempt %s: %w", a.name(), err)
			}
		}
	}
	for name := range found {
		s.removeOrphan(ctx, name)
	}
	return nil
}

// silent reports whether nothing was heard of an attempt for longer than a
// runner takes to attach again.
func (s *Service) silent(a *attempt) bool { return s.Now().Sub(a.contact) > s.Grace }

// endOverdue ends a build that its runner should have ended.
func (s *Service) endOverdue(ctx context.Context, id string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		b, err := t.build(ctx, id)
		if err != nil {
			return err
		}
		a, err := t.attempt(ctx, id, b.GetAttempt())
		if err != nil {
			return err
		}
		late := !a.deadline.IsZero() && !a.deadline.After(t.now)
		switch {
		case a.ended:
			return nil
		case !b.cancel.time.IsZero():
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, b.cancel.reason, b.cancel.message)
		case late && a.runnerID == "":
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED,
				fmt.Sprintf("the container started, but forgexec in it did not reach Forge within %v: check FORGE_RUNNER_URL", attachWithin))
		case late:
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_UNSPECIFIED,
				fmt.Sprintf("ran longer than %v", s.timeout(b)))
		}
		return nil
	})
}

// endLost ends an attempt whose container does not run, unless its runner was
// heard meanwhile.
func (s *Service) endLost(ctx context.Context, lost *attempt, c engine.Container, there bool) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		b, err := t.build(ctx, lost.buildID)
		if err != nil {
			return err
		}
		a, err := t.attempt(ctx, lost.buildID, lost.number)
		switch {
		case err != nil:
			return err
		case a.ended || !s.silent(a):
			return nil
		case there && c.OutOfMemory:
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_OUT_OF_MEMORY, s.outOfMemory(b))
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
	id, number, ok := knownAttempt(name)
	if ok {
		if _, err := readAttempt(ctx, s.store.db.Read(), id, number, ""); err == nil {
			err = s.write(ctx, func(ctx context.Context, t *tx) error { return t.stopSoon(ctx, id, number) })
			if err != nil {
				s.Log.WarnContext(ctx, "orphan not removed", "attempt", name, "error", err)
			}
			return
		}
	}
	s.Log.InfoContext(ctx, "container of no attempt removed", "attempt", name)
	if err := s.Engine.Stop(ctx, name); err != nil {
		s.Log.WarnContext(ctx, "orphan not removed", "attempt", name, "error", err)
	}
}
