package store

import (
	"context"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// Expedite has a build with its jobs, or a job, placed before all that were not
// expedited. fault.Conflict: nothing of it is still to be placed.
func Expedite(ctx context.Context, t *Tx, id, by string) error {
	whole, err := t.Build(ctx, id)
	if err != nil {
		return err
	}
	all := []*Build{whole}
	if whole.HasJobs() {
		jobs, err := JobsOf(ctx, t, id, t.Locked)
		if err != nil {
			return err
		}
		all = append(all, jobs...)
	}
	left := false
	for _, b := range all {
		if !b.toBePlaced() {
			continue
		}
		left = left || !b.HasJobs()
		if b.GetExpeditedBy() != "" {
			continue
		}
		b.ExpeditedBy = by
		if err := t.SaveBuild(ctx, b); err != nil {
			return err
		}
	}
	if !left {
		return fault.Newf(fault.Conflict, "nothing of build %s waits for a place any more", id)
	}
	return nil
}

// toBePlaced reports whether a build is, or may come to be, in the queue.
func (b *Build) toBePlaced() bool {
	switch b.GetState() { //nolint:exhaustive // the others have been placed
	case schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_BLOCKED:
		return true
	}
	return b.HasJobs() && !Ended(b.GetState())
}
