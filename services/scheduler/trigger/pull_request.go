package trigger

import (
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
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
