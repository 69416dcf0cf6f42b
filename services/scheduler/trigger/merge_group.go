package trigger

import (
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

func (p Policy) readGroupRequested(event *eventv1.Event) (Intent, *eventv1.Decision) {
	i, decided := readGroup(event, GroupRequested)
	if decided != nil {
		return i, decided
	}
	return p.orLater(i)
}

func (p Policy) readGroupDestroyed(event *eventv1.Event) (Intent, *eventv1.Decision) {
	return readGroup(event, GroupDestroyed)
}

// readGroup reads an event about a merge group. Its commit lies on a branch of
// the repository, and only who may write there can have queued it: it is no
// fork's, whatever it holds.
func readGroup(event *eventv1.Event, m Kind) (Intent, *eventv1.Decision) {
	group := event.GetMergeGroup()
	if event.GetRepository().GetId() == 0 || group.GetHeadSha() == "" || group.GetHeadRef() == "" || group.GetBaseRef() == "" {
		return Intent{}, Malformed("a merge_group without a repository, a head or a base")
	}
	return Intent{
		Event: event, Kind: m, Sha: group.GetHeadSha(), Ref: group.GetHeadRef(),
		Pull: &eventv1.PullRequest{
			Title: firstLine(group.GetHeadMessage()),
			Base:  &eventv1.PullRequestBranch{Ref: group.GetBaseRef(), Sha: group.GetBaseSha()},
		},
	}, nil
}
