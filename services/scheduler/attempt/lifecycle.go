package attempt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/tests"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Finish ends a build, or a job and what follows from that for its build.
func (s *Service) Finish(ctx context.Context, t *store.Tx, b *store.Build, state schedulerv1.Build_State, reason schedulerv1.Build_Reason, message string) error {
	if err := s.end(ctx, t, b, state, reason, message); err != nil || !b.IsJob() {
		return err
	}
	return s.settle(ctx, t, b.GetPartOf())
}

// end ends a build, and with it its attempt; the container goes, then the
// environment is free for the next, and what follows from a deploy is asked for.
func (s *Service) end(ctx context.Context, t *store.Tx, b *store.Build, state schedulerv1.Build_State, reason schedulerv1.Build_Reason, message string) error {
	if err := endAttempt(ctx, t, b); err != nil {
		return err
	}
	b.State, b.Reason, b.Message = state, reason, message
	b.EndTime, b.Due = timestamppb.New(t.Now), time.Time{}
	if err := t.SaveBuild(ctx, b); err != nil {
		return err
	}
	if state == schedulerv1.Build_STATE_PASSED && !b.IsJob() {
		if err := s.environments.RecordDeployed(ctx, t, b); err != nil {
			return err
		}
		if _, err := s.environments.AskPromotion(ctx, t, b, b.GetUrl()); err != nil {
			return err
		}
	}
	if b.GetAttempt() > 0 || b.IsJob() { // the environment is left with the container, by a whole build
		return nil
	}
	return s.leave(ctx, t, b.GetId())
}

// leave has a build that has ended make way for those who wait for it, once nothing of it
// is left running.
func (s *Service) leave(ctx context.Context, t *store.Tx, wholeID string) error {
	if err := s.environments.Leave(ctx, t, wholeID); err != nil {
		return err
	}
	return s.groups.Leave(ctx, t, wholeID)
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
	if err := tests.Settle(ctx, t, b); err != nil {
		return err
	}
	t.Notify(store.RunnerTopic(b.GetId()), store.LogTopic(b.GetId()))
	if a.LogSize > 0 {
		if err := logs.ArchiveLater(ctx, t, a.BuildID, a.Number); err != nil {
			return err
		}
	}
	if b.GetKeptUntilTime() != nil {
		return store.KeepUntil(ctx, t, b)
	}
	return t.StopSoon(ctx, b.GetId(), b.GetAttempt())
}

// Cancel ends a build that no runner has taken up, and asks the runner of one
// that runs to stop. A build that ended, or was asked before, stays as it is.
func (s *Service) Cancel(ctx context.Context, t *store.Tx, b *store.Build, reason schedulerv1.Build_Reason, message string) error {
	if err := s.cancelOne(ctx, t, b, reason, message); err != nil {
		return err
	}
	if b.IsJob() {
		return s.settle(ctx, t, b.GetPartOf())
	}
	return nil
}

// cancelOne leaves it to its caller what follows for the build of a job.
func (s *Service) cancelOne(ctx context.Context, t *store.Tx, b *store.Build, reason schedulerv1.Build_Reason, message string) error {
	if store.Ended(b.GetState()) || !b.Cancel.Time.IsZero() {
		if reason == schedulerv1.Build_REASON_FAIL_FAST { // nobody asked for that
			return nil
		}
		_, err := store.RemoveKept(ctx, t, b)
		return err
	}
	if b.GetState() != schedulerv1.Build_STATE_RUNNING && !b.HasJobs() {
		return s.end(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, reason, message)
	}
	b.Cancel = store.Cancel{Time: t.Now, Reason: reason, Message: message}
	t.Notify(store.RunnerTopic(b.GetId()))
	if err := t.SaveBuild(ctx, b); err != nil || !b.HasJobs() {
		return err
	}
	jobs, err := store.JobsOf(ctx, t, b.GetId(), t.Locked)
	if err != nil {
		return err
	}
	all := family{service: s, tx: t, whole: b, jobs: jobs}
	if err := all.cancel(ctx, reason, message, func(*store.Build) bool { return false }); err != nil {
		return err
	}
	return s.settle(ctx, t, b.GetId())
}

// lose ends an attempt whose container is gone. A test runs again, as often as
// times says unless the file says otherwise; of a deploy nobody can tell how far it came, so a person
// decides, where the file does not.
func (s *Service) lose(ctx context.Context, t *store.Tx, b *store.Build, times int32, message string) error {
	if !b.Cancel.Time.IsZero() {
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, b.Cancel.Reason, b.Cancel.Message)
	}
	if b.GetEnvironment() != "" && !trigger.IsPreview(b.GetAction()) {
		times = 0
	}
	if retry := b.ConfigJob().GetRetry(); retry.GetLost() {
		times = retry.GetTimes()
	}
	if b.GetAttempt() > times {
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST, message)
	}
	return again(ctx, t, b, schedulerv1.Build_REASON_LOST, fmt.Sprintf("attempt %d was lost, queued once more: %s", b.GetAttempt(), message))
}

// again ends an attempt and queues the next. Nothing of it is handed on: the next
// may set less, and then reports less.
func again(ctx context.Context, t *store.Tx, b *store.Build, reason schedulerv1.Build_Reason, message string) error {
	if err := endAttempt(ctx, t, b); err != nil {
		return err
	}
	if err := t.SaveOutputs(ctx, b.GetId(), nil); err != nil {
		return err
	}
	if err := tests.Supersede(ctx, t, b.GetId()); err != nil {
		return err
	}
	b.State, b.Reason, b.Message, b.StartTime = schedulerv1.Build_STATE_QUEUED, reason, message, nil
	b.PlaceTime, b.ContainerTime, b.SourceTime = nil, nil, nil
	b.Due, b.Tries = t.Now, 0
	return t.SaveBuild(ctx, b)
}

// retried reports whether the file has a build run once more that has failed: the
// first step that failed says so, whatever became of those after it.
func retried(b *store.Build, steps []*schedulerv1.Step) bool {
	retry := b.ConfigJob().GetRetry()
	if !b.Cancel.Time.IsZero() || b.GetAttempt() > retry.GetTimes() {
		return false
	}
	first := slices.IndexFunc(steps, func(step *schedulerv1.Step) bool { return step.GetState() == schedulerv1.Step_STATE_FAILED })
	return first >= 0 && (retry.GetAnyExitCode() || slices.Contains(retry.GetExitCodes(), steps[first].GetExitCode()))
}
