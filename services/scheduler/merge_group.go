package scheduler

import (
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// intendGroup reads an event about a merge group. Its commit lies on a branch of
// the repository, and only who may write there can have queued it: it is no
// fork's, whatever it holds.
func (s *Service) intendGroup(event *eventv1.Event, m moment) (intent, *eventv1.Decision) {
	group := event.GetMergeGroup()
	if event.GetRepository().GetId() == 0 || group.GetHeadSha() == "" || group.GetHeadRef() == "" || group.GetBaseRef() == "" {
		return intent{}, malformed("a merge_group without a repository, a head or a base")
	}
	i := intent{
		event: event, moment: m, sha: group.GetHeadSha(), ref: group.GetHeadRef(),
		pull: &eventv1.PullRequest{
			Title: firstLine(group.GetHeadMessage()),
			Base:  &eventv1.PullRequestBranch{Ref: group.GetBaseRef()},
		},
	}
	if m == ungrouped {
		return i, nil
	}
	return s.trigger(i)
}

// planGroup builds a merge group, unless the queue has given it up.
func (s *Service) planGroup(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	requests, err := t.countGroup(ctx, p.intent, 1)
	if err != nil {
		return nil, err
	}
	if requests <= 0 {
		return ignored(eventv1.Reason_REASON_STALE, "the merge queue has given %s up", short(p.sha)), nil
	}
	return s.planOnce(ctx, t, p)
}

// endGroup cancels the builds of a merge group that the queue has given up.
func (s *Service) endGroup(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	requests, err := t.countGroup(ctx, p.intent, -1)
	if err != nil {
		return nil, err
	}
	if requests > 0 {
		return ignored(eventv1.Reason_REASON_STALE, "the merge queue has asked for %s again", short(p.sha)), nil
	}
	return s.cancelTests(ctx, t, p, stopping{
		which:  func(b *build) bool { return b.GetSha() == p.sha && b.GetRef() == p.ref },
		reason: schedulerv1.Build_REASON_MERGE_GROUP_DESTROYED, message: "the merge group was destroyed", because: "the merge group was destroyed",
	})
}

// countGroup adds to how often a group was asked for less how often it was given
// up, and returns that. The same group may come again, and events in any order.
func (t *tx) countGroup(ctx context.Context, i intent, add int) (requests int, err error) {
	err = t.QueryRowContext(ctx, `INSERT INTO merge_groups (repository_id, ref, sha, requests) VALUES ($1, $2, $3, $4)
		ON CONFLICT (repository_id, ref, sha) DO UPDATE SET requests = merge_groups.requests + excluded.requests
		RETURNING requests`, i.event.GetRepository().GetId(), i.ref, i.sha, add).Scan(&requests)
	return requests, err
}
