package scheduler

import (
	"context"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// enterEnvironment gives a deploy that is about to be stored its environment, or
// has it wait in line.
func (s *Service) enterEnvironment(ctx context.Context, t *tx, b *build) error {
	name := purposeOf(b.GetAction()).environment
	if name == "" {
		return nil
	}
	holder, err := t.environment(ctx, b.GetRepository().GetId(), name)
	if err != nil {
		return err
	}
	if holder == "" {
		return t.holdEnvironment(ctx, b.GetRepository().GetId(), name, b.GetId())
	}
	b.State, b.Reason = schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_ENVIRONMENT_BUSY
	b.Message, b.due = name+" is deploying build "+holder, time.Time{}
	return nil
}

// leaveEnvironment hands the environment of a deploy that has ended to the next
// in line.
func (s *Service) leaveEnvironment(ctx context.Context, t *tx, b *build) error {
	repository, name := b.GetRepository().GetId(), purposeOf(b.GetAction()).environment
	if name == "" {
		return nil
	}
	holder, err := t.environment(ctx, repository, name)
	if err != nil || holder != b.GetId() {
		return err
	}
	waiting, err := t.waiting(ctx, repository, b.GetAction())
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		return t.holdEnvironment(ctx, repository, name, "")
	}
	next := waiting[0]
	if err := t.holdEnvironment(ctx, repository, name, next.GetId()); err != nil {
		return err
	}
	next.State, next.Reason, next.Message, next.due = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, "", t.now
	for _, w := range waiting[1:] {
		w.Message = name + " is deploying build " + next.GetId()
	}
	for _, w := range waiting {
		if err := t.saveBuild(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// environment locks an environment and names the build that holds it; "" when
// it is free.
func (t *tx) environment(ctx context.Context, repositoryID int64, name string) (holder string, err error) {
	err = t.exec(ctx, `INSERT INTO environments (repository_id, name, build_id) VALUES ($1, $2, '') ON CONFLICT DO NOTHING`, repositoryID, name)
	if err != nil {
		return "", err
	}
	err = t.QueryRowContext(ctx, `SELECT build_id FROM environments WHERE repository_id = $1 AND name = $2`+t.locked,
		repositoryID, name).Scan(&holder)
	return holder, err
}

func (t *tx) holdEnvironment(ctx context.Context, repositoryID int64, name, buildID string) error {
	return t.exec(ctx, `UPDATE environments SET build_id = $3 WHERE repository_id = $1 AND name = $2`, repositoryID, name, buildID)
}

// waiting locks the deploys that stand in line, in order.
func (t *tx) waiting(ctx context.Context, repositoryID int64, action schedulerv1.Build_Action) ([]*build, error) {
	return collect(ctx, t, scanBuild, `SELECT `+buildColumns+` FROM builds
		WHERE state = $1 AND repository_id = $2 AND action = $3 ORDER BY number`+t.locked,
		int32(schedulerv1.Build_STATE_WAITING), repositoryID, int32(action))
}
