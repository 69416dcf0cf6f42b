package trigger

import (
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// What an event asks for, by its kind, its base branch and where its commit comes
// from: the table of the design with what comes near it.
func TestWhatAnEventAsksFor(t *testing.T) {
	policy := func(forks string) Policy {
		return Policy{IntegrationBranches: Branches{"main", "master"}, ProductionBranches: Branches{"production"}, Forks: forks}
	}
	pullRequest := func(action, base string, change func(*eventv1.PullRequest)) *eventv1.Event {
		pull := &eventv1.PullRequest{
			Number: 7, Open: true, MergeCommitSha: "merge", Base: &eventv1.PullRequestBranch{Ref: base},
			Head: &eventv1.PullRequestBranch{Sha: "head", Repository: &eventv1.Repository{Id: 1}},
		}
		if change != nil {
			change(pull)
		}
		return &eventv1.Event{
			Name: "pull_request", Action: action, Repository: &eventv1.Repository{Id: 1, DefaultBranch: "main"},
			Payload: &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{PullRequest: pull}},
		}
	}
	merged := func(p *eventv1.PullRequest) { p.Merged, p.Open = true, false }
	fork := func(p *eventv1.PullRequest) { p.Head.Repository.Id = 2 }
	gone := func(p *eventv1.PullRequest) { p.Head.Repository = nil }
	draft := func(p *eventv1.PullRequest) { p.Draft = true }
	const (
		test       = schedulerv1.Build_ACTION_TEST
		staging    = schedulerv1.Build_ACTION_STAGING
		toStaging  = schedulerv1.Build_ACTION_DEPLOY_STAGING
		production = schedulerv1.Build_ACTION_DEPLOY_PRODUCTION
		nothing    = schedulerv1.Build_ACTION_UNSPECIFIED
	)
	for _, c := range []struct {
		name   string
		event  *eventv1.Event
		forks  string
		action schedulerv1.Build_Action
		sha    string
		ref    string
		fork   bool
		text   string // of the decision in place of an intent
	}{
		{name: "opened into main", event: pullRequest("opened", "main", nil), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "opened into master", event: pullRequest("opened", "master", nil), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "a draft", event: pullRequest("opened", "main", draft), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "opened into production", event: pullRequest("opened", "production", nil), action: staging, sha: "head", ref: "refs/pull/7/head"},
		{name: "opened into another", event: pullRequest("opened", "feature", nil), action: nothing, sha: "head", ref: "refs/pull/7/head"},
		{name: "almost main", event: pullRequest("opened", "main2", nil), action: nothing, sha: "head", ref: "refs/pull/7/head"},
		{name: "main in other letters", event: pullRequest("opened", "Main", nil), action: nothing, sha: "head", ref: "refs/pull/7/head"},
		{name: "merged into main", event: pullRequest("closed", "main", merged), action: toStaging, sha: "merge", ref: "refs/heads/main"},
		{name: "merged into production", event: pullRequest("closed", "production", merged), action: production, sha: "merge", ref: "refs/heads/production"},
		{name: "merged into another", event: pullRequest("closed", "feature", merged), text: "ignored: base branch is feature"},
		{name: "closed", event: pullRequest("closed", "main", nil), action: nothing, sha: "head", ref: "refs/pull/7/head"},
		{name: "a fork", event: pullRequest("opened", "main", fork), action: test, sha: "head", ref: "refs/pull/7/head", fork: true},
		{name: "a fork that is gone", event: pullRequest("opened", "main", gone), action: test, sha: "head", ref: "refs/pull/7/head", fork: true},
		{name: "a fork where none are built", event: pullRequest("opened", "main", fork), forks: ForkNever, text: "ignored: pull requests from forks are not built here"},
		{name: "a fork's, merged where none are built", event: pullRequest("closed", "main", func(p *eventv1.PullRequest) { merged(p); fork(p) }), forks: ForkNever, action: toStaging, sha: "merge", ref: "refs/heads/main"},
		{name: "labeled", event: pullRequest("labeled", "main", nil), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "unlabeled, into production", event: pullRequest("unlabeled", "production", nil), action: staging, sha: "head", ref: "refs/pull/7/head"},
		{name: "a draft no more", event: pullRequest("ready_for_review", "main", nil), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "a draft from now on", event: pullRequest("converted_to_draft", "main", draft), action: test, sha: "head", ref: "refs/pull/7/head"},
		{name: "labeled, into another", event: pullRequest("labeled", "feature", nil), action: nothing, sha: "head", ref: "refs/pull/7/head"},
		{name: "labeled, of a fork where none are built", event: pullRequest("labeled", "main", fork), forks: ForkNever, text: "ignored: pull requests from forks are not built here"},
		{name: "no head", event: pullRequest("opened", "main", func(p *eventv1.PullRequest) { p.Head.Sha = "" }), text: "malformed: a pull_request event without a repository, a number or a head"},
		{name: "merged without a commit", event: pullRequest("closed", "main", func(p *eventv1.PullRequest) { merged(p); p.MergeCommitSha = "" }), text: "malformed: merged without a merge commit"},
	} {
		if c.forks == "" {
			c.forks = ForkApprove
		}
		row, decided := Find(c.event)
		if decided != nil {
			t.Errorf("%s: %v", c.name, decided)
			continue
		}
		i, decided := row.Read(policy(c.forks), c.event)
		if decided.GetText() != c.text {
			t.Errorf("%s is decided %q, want %q", c.name, decided.GetText(), c.text)
		}
		if decided == nil && (i.Action != c.action || i.Sha != c.sha || i.Ref != c.ref || i.Fork != c.fork) {
			t.Errorf("%s asks for %v of %s at %s, fork %v; want %v of %s at %s, fork %v", c.name, i.Action, i.Sha, i.Ref, i.Fork, c.action, c.sha, c.ref, c.fork)
		}
	}
}

// What runs once a pull request is closed stands beside what its end asks for.
func TestWhatAnEndAsksForBesides(t *testing.T) {
	policy := Policy{IntegrationBranches: Branches{"main"}, ProductionBranches: Branches{"production"}, Forks: ForkNever}
	for _, c := range []struct {
		kind   Kind
		base   string
		head   int64 // the repository it is in
		action schedulerv1.Build_Action
		none   bool
	}{
		{kind: PullRequestClosed, base: "main", head: 1, action: schedulerv1.Build_ACTION_CLOSED},
		{kind: PullRequestMerged, base: "main", head: 1, action: schedulerv1.Build_ACTION_CLOSED},
		{kind: PullRequestMerged, base: "production", head: 1, action: schedulerv1.Build_ACTION_CLOSED},
		{kind: PullRequestMerged, base: "feature", head: 1}, // its file may say so
		{kind: PullRequestClosed, base: "main", head: 2},    // what was built before the server said so has ended
		{kind: PullRequestOffered, base: "main", head: 1, none: true},
		{kind: PullRequestMarked, base: "main", head: 1, none: true},
	} {
		event := &eventv1.Event{
			Repository: &eventv1.Repository{Id: 1}, Payload: &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{PullRequest: &eventv1.PullRequest{
				Number: 7, Base: &eventv1.PullRequestBranch{Ref: c.base}, Head: &eventv1.PullRequestBranch{Sha: "head", Repository: &eventv1.Repository{Id: c.head}}, MergeCommitSha: "merge",
			}}},
		}
		all := policy.Ended(c.kind, event)
		if len(all) == 0 != c.none {
			t.Errorf("%+v: %v", c, all)
		}
		for _, i := range all {
			if i.Kind != PullRequestEnded || i.Action != c.action || i.Sha != "head" || i.Ref != "refs/pull/7/head" {
				t.Errorf("%+v: %v", c, i)
			}
		}
	}
}

func TestATagHasAStatusOfItsOwn(t *testing.T) {
	for ref, want := range map[string]string{"refs/heads/main": "forge/push", "refs/tags/v1": "forge/tag", "refs/heads/refs/tags/v1": "forge/push"} {
		if got := (Intent{Action: schedulerv1.Build_ACTION_PUSH, Ref: ref}).Context(); got != want {
			t.Errorf("%s is told as %s, want %s", ref, got, want)
		}
	}
}
