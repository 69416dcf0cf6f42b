package plan

import (
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// applyGroup builds a merge group, unless the queue has given it up.
func (s *Service) applyGroup(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	requests, err := t.CountGroup(ctx, p.Intent, 1)
	if err != nil {
		return nil, err
	}
	if requests <= 0 {
		return wording.Ignored(eventv1.Reason_REASON_STALE, "the merge queue has given %s up", wording.Short(p.Sha)), nil
	}
	return s.applyOnce(ctx, t, p, pull)
}

// applyGroupDestroyed cancels the builds of a merge group that the queue has given up.
func (s *Service) applyGroupDestroyed(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	requests, err := t.CountGroup(ctx, p.Intent, -1)
	if err != nil {
		return nil, err
	}
	if requests > 0 {
		return wording.Ignored(eventv1.Reason_REASON_STALE, "the merge queue has asked for %s again", wording.Short(p.Sha)), nil
	}
	return s.cancelTests(ctx, t, p, cancellation{
		which:  func(b *store.Build) bool { return b.GetSha() == p.Sha && b.GetRef() == p.Ref },
		reason: schedulerv1.Build_REASON_MERGE_GROUP_DESTROYED, message: "the merge group was destroyed", because: "the merge group was destroyed",
	})
}
