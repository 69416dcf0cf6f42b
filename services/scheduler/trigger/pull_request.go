package trigger

import (
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func (p Policy) readOffered(event *eventv1.Event) (Intent, *eventv1.Decision) {
	return p.readPull(event, PullRequestOffered)
}

func (p Policy) readMerged(event *eventv1.Event) (Intent, *eventv1.Decision) {
	return p.readPull(event, PullRequestMerged)
}

func (p Policy) readClosed(event *eventv1.Event) (Intent, *eventv1.Decision) {
	return p.readPull(event, PullRequestClosed)
}

func (p Policy) readMarked(event *eventv1.Event) (Intent, *eventv1.Decision) {
	return p.readPull(event, PullRequestMarked)
}

// Ended is the intent of what runs once a pull request is closed, beside what else
// its kind asks for; none where that is another.
func (p Policy) Ended(kind Kind, event *eventv1.Event) []Intent {
	if kind != PullRequestMerged && kind != PullRequestClosed {
		return nil
	}
	ended, decided := p.readPull(event, PullRequestEnded)
	switch {
	case decided.GetReason() == eventv1.Reason_REASON_FORK_IGNORED: // it may have been built before
		ended.Action = schedulerv1.Build_ACTION_UNSPECIFIED
	case decided != nil:
		return nil
	}
	return []Intent{ended}
}

func (p Policy) readPull(event *eventv1.Event, m Kind) (Intent, *eventv1.Decision) {
	pull := event.GetPullRequest().GetPullRequest()
	if event.GetRepository().GetId() == 0 || pull.GetNumber() == 0 || pull.GetHead().GetSha() == "" {
		return Intent{}, Malformed("a pull_request event without a repository, a number or a head")
	}
	if m == PullRequestMerged && pull.GetMergeCommitSha() == "" {
		return Intent{}, Malformed("merged without a merge commit")
	}
	return p.Resolve(Intent{Event: event, Pull: pull, Kind: m})
}
