package trigger

import (
	"slices"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// corpus is each event that GitHub sends, with each action and what else a row looks at.
func corpus() []*eventv1.Event {
	var all []*eventv1.Event
	actions := []string{
		"", "opened", "reopened", "synchronize", "edited", "closed", "labeled", "unlabeled", "ready_for_review", "converted_to_draft",
		"checks_requested", "destroyed", "created", "deleted", "completed", "requested", "rerequested", "requested_action", "suspend",
		"unsuspend", "added", "removed", "renamed", "transferred", "submitted", "published",
	}
	names := []string{
		"pull_request", "merge_group", "push", "check_run", "check_suite", "issue_comment", "installation", "installation_repositories",
		"repository", "release", "ping",
	}
	for _, name := range names {
		for _, action := range actions {
			for flags := range 8 {
				all = append(all, &eventv1.Event{Name: name, Action: action, Payload: &eventv1.Event_PullRequest{
					PullRequest: &eventv1.PullRequestEvent{
						PreviousBaseRef: map[bool]string{true: "old"}[flags&1 != 0],
						PullRequest:     &eventv1.PullRequest{Open: flags&2 != 0, Merged: flags&4 != 0},
					},
				}})
			}
		}
	}
	return all
}

func fitting(rows []Row, event *eventv1.Event) (fit []Row) {
	for _, row := range rows {
		if row.event == event.GetName() && (row.action == "" || row.action == event.GetAction()) && row.holds(event) {
			fit = append(fit, row)
		}
	}
	return fit
}

func TestNoEventFitsTwoRows(t *testing.T) {
	used := map[int]bool{}
	for _, event := range corpus() {
		fit := fitting(kinds(), event)
		if len(fit) > 1 {
			t.Errorf("%v fits %d rows", event, len(fit))
		}
		row, decided := Find(event)
		if (len(fit) == 1) != (decided == nil) || len(fit) == 1 && row.Kind != fit[0].Kind {
			t.Errorf("%v is of kind %d, decided %v; %d rows fit", event, row.Kind, decided, len(fit))
		}
		for n, one := range kinds() {
			if len(fit) > 0 && one.event == fit[0].event && one.action == fit[0].action && one.Kind == fit[0].Kind {
				used[n] = true
			}
		}
	}
	if len(used) != len(kinds()) {
		t.Errorf("the events of this test fit %d of %d rows", len(used), len(kinds()))
	}
}

// A row too many is found.
func TestASecondRowThatFitsIsFound(t *testing.T) {
	second := append(kinds(), Row{"pull_request", "closed", func(*eventv1.Event) bool { return true }, PullRequestClosed, nil})
	for _, event := range corpus() {
		if len(fitting(second, event)) > 1 {
			return
		}
	}
	t.Error("no event fits two rows, though two rows are for pull requests that are closed")
}

func TestNoTwoTriggersAreForTheSame(t *testing.T) {
	seen := map[Trigger]bool{}
	for _, row := range Triggers() {
		key := Trigger{Kind: row.Kind, Into: row.Into}
		if seen[key] {
			t.Errorf("two rows for kind %d into branch %d", row.Kind, row.Into)
		}
		seen[key] = true
	}
}

func TestWhatAnEventIs(t *testing.T) {
	for _, c := range []struct {
		name, action string
		previousBase string
		open, merged bool
		kind         Kind
		ignored      string
	}{
		{name: "pull_request", action: "opened", open: true, kind: PullRequestOffered},
		{name: "pull_request", action: "reopened", open: true, kind: PullRequestOffered},
		{name: "pull_request", action: "synchronize", open: true, kind: PullRequestOffered},
		{name: "pull_request", action: "edited", previousBase: "old", open: true, kind: PullRequestOffered},
		{name: "pull_request", action: "edited", open: true, ignored: "ignored: action edited"},
		{name: "pull_request", action: "edited", previousBase: "old", ignored: "ignored: action edited"},
		{name: "pull_request", action: "closed", merged: true, kind: PullRequestMerged},
		{name: "pull_request", action: "closed", kind: PullRequestClosed},
		{name: "pull_request", action: "labeled", open: true, kind: PullRequestMarked},
		{name: "pull_request", action: "labeled", ignored: "ignored: action labeled"},
		{name: "pull_request", action: "unlabeled", open: true, kind: PullRequestMarked},
		{name: "pull_request", action: "unlabeled", merged: true, ignored: "ignored: action unlabeled"},
		{name: "pull_request", action: "ready_for_review", open: true, kind: PullRequestMarked},
		{name: "pull_request", action: "converted_to_draft", open: true, kind: PullRequestMarked},
		{name: "pull_request", action: "converted_to_draft", ignored: "ignored: action converted_to_draft"},
		{name: "pull_request", action: "review_requested", open: true, ignored: "ignored: action review_requested"},
		{name: "merge_group", action: "checks_requested", kind: GroupRequested},
		{name: "merge_group", action: "destroyed", kind: GroupDestroyed},
		{name: "push", kind: Pushed},
		{name: "check_run", action: "rerequested", kind: ButtonPressed},
		{name: "check_run", action: "requested_action", kind: ButtonPressed},
		{name: "check_run", action: "completed", ignored: "ignored: action completed"},
		{name: "check_suite", action: "rerequested", kind: ButtonPressed},
		{name: "check_suite", action: "requested", ignored: "ignored: action requested"},
		{name: "issue_comment", action: "created", kind: Commented},
		{name: "issue_comment", action: "edited", ignored: "ignored: action edited"},
		{name: "installation", action: "suspend", kind: InstallationChanged},
		{name: "release", action: "published", kind: ReleasePublished},
		{name: "release", action: "released", ignored: "ignored: action released"},
		{name: "release", action: "prereleased", ignored: "ignored: action prereleased"},
		{name: "release", action: "created", ignored: "ignored: action created"},
		{name: "release", action: "deleted", ignored: "ignored: action deleted"},
		{name: "create", ignored: "ignored: nothing is built for create"},
	} {
		row, decided := Find(&eventv1.Event{Name: c.name, Action: c.action, Payload: &eventv1.Event_PullRequest{
			PullRequest: &eventv1.PullRequestEvent{
				PreviousBaseRef: c.previousBase, PullRequest: &eventv1.PullRequest{Open: c.open, Merged: c.merged},
			},
		}})
		if row.Kind != c.kind || decided.GetText() != c.ignored {
			t.Errorf("%+v: kind %d, %q", c, row.Kind, decided.GetText())
		}
	}
}

// What has no reader here is read by plan, which asks GitHub, or needs no reading.
func TestEachKindIsReadOrAskedAbout(t *testing.T) {
	asked := []Kind{ButtonPressed, Commented, InstallationChanged}
	for _, row := range kinds() {
		if (row.Read == nil) != slices.Contains(asked, row.Kind) {
			t.Errorf("%s %s of kind %d: has a reader: %v", row.event, row.action, row.Kind, row.Read != nil)
		}
	}
}
