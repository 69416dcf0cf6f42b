package attempt

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/graph"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Open lets the jobs of a build begin, now that the build may: it was approved, or
// has its environment.
func (s *Service) Open(ctx context.Context, t *store.Tx, whole *store.Build) error {
	if !whole.HasJobs() {
		return nil
	}
	return s.settle(ctx, t, whole.GetId())
}

// noteRunning stores that the build of a job runs, with its first job.
func noteRunning(ctx context.Context, t *store.Tx, job *store.Build) error {
	if !job.IsJob() {
		return nil
	}
	whole, err := t.Build(ctx, job.GetPartOf())
	if err != nil || whole.GetState() == schedulerv1.Build_STATE_RUNNING {
		return err
	}
	whole.State, whole.Reason, whole.Message = schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_REASON_UNSPECIFIED, ""
	whole.StartTime = timestamppb.New(t.Now)
	return t.SaveBuild(ctx, whole)
}

// settle does what follows from the end of a job: those that needed it begin or
// are left out, and with the last one the build ends.
func (s *Service) settle(ctx context.Context, t *store.Tx, wholeID string) error {
	whole, err := t.Build(ctx, wholeID)
	if err != nil || store.Ended(whole.GetState()) {
		return err
	}
	jobs, err := store.JobsOf(ctx, t, wholeID, t.Locked)
	if err != nil {
		return err
	}
	f := family{service: s, tx: t, whole: whole, jobs: jobs}
	if err := f.failFast(ctx); err != nil {
		return err
	}
	if err := f.advance(ctx); err != nil || !graph.Ended(jobs) {
		return err
	}
	state, reason, message := graph.Total(jobs)
	if state == schedulerv1.Build_STATE_CANCELLED && !whole.Cancel.Time.IsZero() {
		reason, message = whole.Cancel.Reason, whole.Cancel.Message
	}
	return s.end(ctx, t, whole, state, reason, message)
}

// family is a build with its jobs, locked.
type family struct {
	service *Service
	tx      *store.Tx
	whole   *store.Build
	jobs    []*store.Build
}

// advance has those jobs begin that may, unless something keeps back the build.
func (f family) advance(ctx context.Context) error {
	if state := f.whole.GetState(); state != schedulerv1.Build_STATE_QUEUED && state != schedulerv1.Build_STATE_RUNNING {
		return nil
	}
	for _, job := range graph.Advance(f.jobs, f.tx.Now) {
		if err := f.tx.SaveBuild(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// failFast cancels the jobs of a build that asks for it, once one has failed that
// may not.
func (f family) failFast(ctx context.Context) error {
	for _, failed := range f.jobs {
		if store.Ended(failed.GetState()) && graph.FailsFast(f.whole, failed) {
			return f.cancel(ctx, schedulerv1.Build_REASON_FAIL_FAST, failed.GetJob()+" did not pass, and fail_fast is set", graph.Outlasts)
		}
	}
	return nil
}

// cancel cancels the jobs, but for those to be spared.
func (f family) cancel(ctx context.Context, reason schedulerv1.Build_Reason, message string, spared func(*store.Build) bool) error {
	for _, job := range f.jobs {
		if spared(job) {
			continue
		}
		if err := f.service.cancelOne(ctx, f.tx, job, reason, message); err != nil {
			return err
		}
	}
	return nil
}
