package attempt

import (
	"context"
	"errors"
	"fmt"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// sweepOften looks after attempts whose end nobody reports, at once and then
// with every heartbeat. Of several replicas one does: they all have the same engine.
func (s *Service) sweepOften(ctx context.Context) error {
	tick := time.NewTicker(s.Runners.Heartbeat)
	defer tick.Stop()
	for {
		// A turn is a little shorter than a tick, or one that comes early would miss it.
		mine, err := s.store.ClaimSweep(ctx, s.Runners.Heartbeat*3/4)
		if err == nil && mine {
			err = s.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
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
// removes containers of no attempt, and loaded images of no build.
func (s *Service) Sweep(ctx context.Context) error { return sweep{s}.run(ctx) }

// sweep looks once after all attempts.
type sweep struct{ *Service }

func (s sweep) run(ctx context.Context) error {
	if err := s.leaveGroups(ctx); err != nil { // the engine has no part in it
		return err
	}
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
	containers, err := s.list(ctx)
	if err != nil {
		return err
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
		if err := s.attend(ctx, a, c, there); err != nil {
			return fmt.Errorf("attempt %s: %w", a.Name(), err)
		}
	}
	for name := range found {
		s.removeOrphan(ctx, name)
	}
	return imageSteps(s).forgetImages(ctx)
}

// list asks the engine what runs, and remembers since when it does not say.
func (s sweep) list(ctx context.Context) ([]engine.Container, error) {
	call, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	containers, err := s.engine.List(call)
	if ctx.Err() != nil { // not the engine's doing
		return nil, ctx.Err()
	}
	away, unknown := s.store.OutageSince(ctx)
	switch {
	case err != nil:
		s.metrics.atFault(ctx, engineAtFault, "list")
		err = fmt.Errorf("list the containers of %s: %w", s.engine.Name(), err)
		if unknown == nil && away.IsZero() {
			unknown = s.store.NoteOutage(ctx)
		}
	case !away.IsZero():
		unknown = s.store.NoteOutageOver(ctx)
	}
	return containers, errors.Join(err, unknown)
}

// EngineAway is since when the engine does not tell what runs, once that is worth
// telling people; zero where it does.
func (s *Service) EngineAway(ctx context.Context) (time.Time, error) {
	since, err := s.store.OutageSince(ctx)
	if s.now().Sub(since) < outageTold {
		return time.Time{}, err
	}
	return since, err
}

// outageTold is how long an engine is away before people are told.
const outageTold = time.Minute

// attend looks after a live attempt whose container is as the engine says.
func (s sweep) attend(ctx context.Context, a *store.Attempt, c engine.Container, there bool) error {
	if c.Machine != "" && c.Machine != a.Machine {
		err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return a.SetMachine(ctx, t, c.Machine) })
		if err != nil {
			return err
		}
	}
	if !a.Placed || s.fateOf(a, c, there) == nil {
		return nil
	}
	return s.endLost(ctx, a, c, there)
}

// endOverdue ends a build that its runner should have ended.
func (s sweep) endOverdue(ctx context.Context, id string) error {
	says, err := s.tailOf(ctx, id)
	if err != nil {
		return err
	}
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
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, s.neverAttached(a, says))
		case late:
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_UNSPECIFIED,
				fmt.Sprintf("ran longer than %v", s.timeout(b)))
		}
		return nil
	})
}

// endLost ends an attempt whose container does not run, or is out of reach, unless
// its runner was heard meanwhile.
func (s sweep) endLost(ctx context.Context, lost *store.Attempt, c engine.Container, there bool) error {
	ending := ""
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		ending = ""
		b, a, err := store.BuildOf(ctx, t, lost.BuildID, lost.Number)
		if err != nil || a.Ended {
			return err
		}
		f := s.fateOf(a, c, there)
		if f == nil {
			return nil
		}
		ending = f.ending
		if f.state != 0 {
			return s.Finish(ctx, t, b, f.state, f.reason, f.message(s.Service, b))
		}
		return s.lose(ctx, t, b, f.times, f.message(s.Service, b))
	})
	if err == nil && ending != "" {
		s.metrics.atFault(ctx, runnerAtFault, ending)
	}
	return err
}

// removeOrphan removes the container of an attempt that is over. One that is
// known is removed by its row, so that it is tried until done.
func (s sweep) removeOrphan(ctx context.Context, name string) {
	id, number, ok := store.KnownAttempt(name)
	if ok {
		if _, err := store.ReadAttempt(ctx, s.store.DB.Read(), id, number, ""); err == nil {
			err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return store.StopLeftover(ctx, t, id, number) })
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
