package trigger

import (
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/wording"
)

// Kind is what happened, as far as it matters here.
type Kind int

// What may happen; the last three are asked for by people.
const (
	PullRequestOffered Kind = iota + 1 // it has a head, or a base, that it did not have before
	PullRequestMerged
	PullRequestClosed // without a merge
	PullRequestMarked // its labels changed, or that it is a draft
	PullRequestEnded  // merged or not; beside the two kinds that tell these apart
	GroupRequested    // the merge queue asks for checks of a group
	GroupDestroyed    // it gives the group up
	Pushed            // a branch or a tag has a commit that it did not have before
	ReleasePublished
	ButtonPressed // at a check
	Commented
	InstallationChanged // the App was installed, removed or changed

	RebuildAsked  // somebody wants it built, though it may have been built before
	CancelAsked   // somebody wants it stopped
	ApprovalGiven // somebody lets a fork's commit run

	TimeCame    // that a schedule has; no event tells of it
	DeployCame  // after one of the same commit to another environment; likewise
	RemoteAsked // somebody wants their working tree built; by a call
	ManualAsked // somebody wants what `manual` runs, with values of its inputs; by a call
)

// Reader reads an event that needs nothing else to be understood. Where nothing is
// to be done for it, whatever else is known, it says so by a decision instead.
type Reader func(Policy, *eventv1.Event) (Intent, *eventv1.Decision)

// Row says which events are of a kind. No event fits two rows.
type Row struct {
	event  string
	action string // "": whatever the action
	holds  func(*eventv1.Event) bool
	Kind   Kind
	// Read is nil where others have to be asked: who pressed, or wrote.
	Read Reader
}

// kinds is the table of the events that matter.
func kinds() []Row {
	always := func(*eventv1.Event) bool { return true }
	wasMerged := func(e *eventv1.Event) bool { return e.GetPullRequest().GetPullRequest().GetMerged() }
	unmerged := func(e *eventv1.Event) bool { return !wasMerged(e) }
	isOpen := func(e *eventv1.Event) bool { return e.GetPullRequest().GetPullRequest().GetOpen() }
	newBase := func(e *eventv1.Event) bool {
		return e.GetPullRequest().GetPreviousBaseRef() != "" && e.GetPullRequest().GetPullRequest().GetOpen()
	}
	return []Row{
		{"pull_request", "opened", always, PullRequestOffered, Policy.readOffered},
		{"pull_request", "reopened", always, PullRequestOffered, Policy.readOffered},
		{"pull_request", "synchronize", always, PullRequestOffered, Policy.readOffered},
		{"pull_request", "edited", newBase, PullRequestOffered, Policy.readOffered},
		{"pull_request", "closed", wasMerged, PullRequestMerged, Policy.readMerged},
		{"pull_request", "closed", unmerged, PullRequestClosed, Policy.readClosed},
		{"pull_request", "labeled", isOpen, PullRequestMarked, Policy.readMarked},
		{"pull_request", "unlabeled", isOpen, PullRequestMarked, Policy.readMarked},
		{"pull_request", "ready_for_review", isOpen, PullRequestMarked, Policy.readMarked},
		{"pull_request", "converted_to_draft", isOpen, PullRequestMarked, Policy.readMarked},
		{"merge_group", "checks_requested", always, GroupRequested, Policy.readGroupRequested},
		{"merge_group", "destroyed", always, GroupDestroyed, Policy.readGroupDestroyed},
		{"push", "", always, Pushed, Policy.readPush},
		{"release", "published", always, ReleasePublished, Policy.readRelease},
		{"check_run", "rerequested", always, ButtonPressed, nil},
		{"check_run", "requested_action", always, ButtonPressed, nil},
		{"check_suite", "rerequested", always, ButtonPressed, nil},
		{"issue_comment", "created", always, Commented, nil},
		{"installation", "", always, InstallationChanged, nil},
	}
}

// Kinds are those that an event can be of.
func Kinds() []Kind {
	var all []Kind
	for _, row := range kinds() {
		if !slices.Contains(all, row.Kind) {
			all = append(all, row.Kind)
		}
	}
	return all
}

// Find looks up what an event is; a decision comes in its place for what brings
// nothing.
func Find(event *eventv1.Event) (Row, *eventv1.Decision) {
	known := false
	for _, row := range kinds() {
		if row.event != event.GetName() {
			continue
		}
		known = true
		if (row.action == "" || row.action == event.GetAction()) && row.holds(event) {
			return row, nil
		}
	}
	if known {
		return Row{}, wording.Ignored(eventv1.Reason_REASON_ACTION_IGNORED, "action %s", event.GetAction())
	}
	return Row{}, wording.Ignored(eventv1.Reason_REASON_EVENT_IGNORED, "nothing is built for %s", event.GetName())
}
