package scheduler

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// States grow towards the end: this one and those above it are final.
const firstEnded = schedulerv1.Build_STATE_PASSED

func ended(state schedulerv1.Build_State) bool { return state >= firstEnded }

// finish ends a build, and with it its attempt; the container goes, then the
// environment is free for the next, and what follows from a deploy is asked for.
func (s *Service) finish(ctx context.Context, t *tx, b *build, state schedulerv1.Build_State, reason schedulerv1.Build_Reason, message string) error {
	if err := t.endAttempt(ctx, b); err != nil {
		return err
	}
	b.State, b.Reason, b.Message = state, reason, message
	b.EndTime, b.due = timestamppb.New(t.now), time.Time{}
	if err := t.saveBuild(ctx, b); err != nil {
		return err
	}
	if state == schedulerv1.Build_STATE_PASSED {
		if err := t.noteDeployed(ctx, b); err != nil {
			return err
		}
		if _, err := s.askPromotion(ctx, t, b, b.GetUrl()); err != nil {
			return err
		}
	}
	if b.GetAttempt() > 0 { // the environment is left with the container
		return nil
	}
	return s.leaveEnvironment(ctx, t, b.GetId())
}

// endAttempt fences the current attempt, if there is one, and has its container
// removed.
func (t *tx) endAttempt(ctx context.Context, b *build) error {
	if b.GetAttempt() == 0 {
		return nil
	}
	a, err := t.attempt(ctx, b.GetId(), b.GetAttempt())
	if err != nil {
		return err
	}
	a.ended = true
	if err := t.saveAttempt(ctx, a); err != nil {
		return err
	}
	t.news.topics = append(t.news.topics, runnerTopic(b.GetId()), logTopic(b.GetId()))
	if a.logSize > 0 {
		if err := t.archiveLater(ctx, a.buildID, a.number); err != nil {
			return err
		}
	}
	return t.stopSoon(ctx, b.GetId(), b.GetAttempt())
}

// cancel ends a build that no runner has taken up, and asks the runner of one
// that runs to stop. A build that ended, or was asked before, stays as it is.
func (s *Service) cancel(ctx context.Context, t *tx, b *build, reason schedulerv1.Build_Reason, message string) error {
	switch {
	case ended(b.GetState()) || !b.cancel.time.IsZero():
		return nil
	case b.GetState() != schedulerv1.Build_STATE_RUNNING:
		return s.finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, reason, message)
	}
	b.cancel = cancel{time: t.now, reason: reason, message: message}
	t.news.topics = append(t.news.topics, runnerTopic(b.GetId()))
	return t.saveBuild(ctx, b)
}

// lose ends an attempt whose container is gone. A test runs once more; of a
// deploy nobody can tell how far it came, so a person decides.
func (s *Service) lose(ctx context.Context, t *tx, b *build, message string) error {
	if !b.cancel.time.IsZero() {
		return s.finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, b.cancel.reason, b.cancel.message)
	}
	if b.GetEnvironment() != "" || b.GetAttempt() > 1 {
		return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST, message)
	}
	if err := t.endAttempt(ctx, b); err != nil {
		return err
	}
	b.State, b.Reason = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_LOST
	b.Message, b.StartTime = fmt.Sprintf("attempt %d was lost, queued once more: %s", b.GetAttempt(), message), nil
	b.due, b.tries = t.now, 0
	return t.saveBuild(ctx, b)
}
