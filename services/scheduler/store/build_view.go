package store

import (
	"context"
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ReadWhole reads a build with its steps and the size of its log.
func (s *Store) ReadWhole(ctx context.Context, id string) (*schedulerv1.Build, error) {
	pool := s.DB.Read()
	b, err := ReadBuild(ctx, pool, id, "")
	if err != nil {
		return nil, err
	}
	if b.HasJobs() {
		jobs, err := JobsOf(ctx, pool, id, "")
		for _, job := range jobs {
			b.Jobs = append(b.Jobs, ShowJob(job))
		}
		return b.Build, sqldb.Kind(err)
	}
	if b.Steps, err = Steps(ctx, pool, b); err != nil {
		return nil, fmt.Errorf("steps of build %s: %w", id, sqldb.Kind(err))
	}
	if b.GetAttempt() > 0 {
		a, err := ReadAttempt(ctx, pool, id, b.GetAttempt(), "")
		if err != nil {
			return nil, err
		}
		b.LogSize, b.Machine = a.LogSize, a.Machine
	}
	return b.Build, nil
}

// Steps are the steps of the latest attempt: the planned ones, as far as its
// runner has told of them, and what the end of the build means for the rest.
func Steps(ctx context.Context, q sqldb.Querier, b *Build) ([]*schedulerv1.Step, error) {
	all := b.PlannedSteps()
	told, err := BegunSteps(ctx, q, b.GetId(), b.GetAttempt())
	if err != nil {
		return nil, err
	}
	for _, step := range told {
		if n := int(step.GetNumber()); n >= 1 && n <= len(all) {
			all[n-1] = step
		}
	}
	if !Ended(b.GetState()) {
		return all, nil
	}
	for _, step := range all {
		switch step.GetState() {
		case schedulerv1.Step_STATE_PENDING:
			step.State = schedulerv1.Step_STATE_SKIPPED
		case schedulerv1.Step_STATE_RUNNING:
			step.State = schedulerv1.Step_STATE_STOPPED
		default:
		}
	}
	return all, nil
}
