package attempt

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Finish ends a build, and with it its attempt; the container goes, then the
// environment is free for the next, and what follows from a deploy is asked for.
func (s *Service) Finish(ctx context.Context, t *store.Tx, b *store.Build, state schedulerv1.Build_State, reason schedulerv1.Build_Reason, message string) error {
	if err := endAttempt(ctx, t, b); err != nil {
		return err
	}
	b.State, b.Reason, b.Message = state, reason, message
	b.EndTime, b.Due = timestamppb.New(t.Now), time.Time{}
	if err := t.SaveBuild(ctx, b); err != nil {
		return err
	}
	if state == schedulerv1.Build_STATE_PASSED {
		if err := s.environments.RecordDeployed(ctx, t, b); err != nil {
			return err
		}
		if _, err := s.environments.AskPromotion(ctx, t, b, b.GetUrl()); err != nil {
			return err
		}
	}
	if b.GetAttempt() > 0 { // the environment is left with the container
		return nil
	}
	return s.environments.Leave(ctx, t, b.GetId())
}

// endAttempt fences the current attempt, if there is one, and has its container
// removed.
func endAttempt(ctx context.Context, t *store.Tx, b *store.Build) error {
	if b.GetAttempt() == 0 {
		return nil
	}
	a, err := t.Attempt(ctx, b.GetId(), b.GetAttempt())
	if err != nil {
		return err
	}
	a.Ended = true
	if err := t.SaveAttempt(ctx, a); err != nil {
		return err
	}
	t.Notify(store.RunnerTopic(b.GetId()), store.LogTopic(b.GetId()))
	if a.LogSize > 0 {
		if err := logs.ArchiveLater(ctx, t, a.BuildID, a.Number); err != nil {
			return err
		}
	}
	return t.StopSoon(ctx, b.GetId(), b.GetAttempt())
}

// Cancel ends a build that no runner has taken up, and asks the runner of one
// that runs to stop. A build that ended, or was asked before, stays as it is.
func (s *Service) Cancel(ctx context.Context, t *store.Tx, b *store.Build, reason schedulerv1.Build_Reason, message string) error {
	switch {
	case store.Ended(b.GetState()) || !b.Cancel.Time.IsZero():
		return nil
	case b.GetState() != schedulerv1.Build_STATE_RUNNING:
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, reason, message)
	}
	b.Cancel = store.Cancel{Time: t.Now, Reason: reason, Message: message}
	t.Notify(store.RunnerTopic(b.GetId()))
	return t.SaveBuild(ctx, b)
}

// lose ends an attempt whose container is gone. A test runs once more; of a
// deploy nobody can tell how far it came, so a person decides.
func (s *Service) lose(ctx context.Context, t *store.Tx, b *store.Build, message string) error {
	if !b.Cancel.Time.IsZero() {
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, b.Cancel.Reason, b.Cancel.Message)
	}
	if b.GetEnvironment() != "" || b.GetAttempt() > 1 {
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST, message)
	}
	if err := endAttempt(ctx, t, b); err != nil {
		return err
	}
	b.State, b.Reason = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_LOST
	b.Message, b.StartTime = fmt.Sprintf("attempt %d was lost, queued once more: %s", b.GetAttempt(), message), nil
	b.Due, b.Tries = t.Now, 0
	return t.SaveBuild(ctx, b)
}
