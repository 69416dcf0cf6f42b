package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// What becomes of pull requests from forks.
const (
	forkApprove = "approve"
	forkRun     = "run"
	forkNever   = "never"
)

// purpose is what a build is for.
type purpose struct {
	// name is FORGE_ACTION, and the commit status after "forge/".
	name string
	// job is the part of .forge.yml it runs; nil or empty where there is none.
	job func(*configv1.BuildConfig) *configv1.Job
	// priority: the lowest is placed first.
	priority int
	// environment is what it deploys to; empty for tests.
	environment string
	// promotes: once it has passed, or where .forge.yml has no job for it, the
	// branch it was merged into is promoted to production.
	promotes bool
}

func purposeOf(action schedulerv1.Build_Action) purpose {
	return map[schedulerv1.Build_Action]purpose{
		schedulerv1.Build_ACTION_TEST:              {name: "test", job: (*configv1.BuildConfig).GetExecute, priority: 2},
		schedulerv1.Build_ACTION_STAGING:           {name: "staging", job: stagingOrExecute, priority: 2},
		schedulerv1.Build_ACTION_DEPLOY_STAGING:    {name: "deploy-staging", job: (*configv1.BuildConfig).GetDeployStaging, environment: "staging", promotes: true},
		schedulerv1.Build_ACTION_DEPLOY_PRODUCTION: {name: "deploy-production", job: (*configv1.BuildConfig).GetDeployProduction, environment: "production"},
	}[action]
}

func stagingOrExecute(c *configv1.BuildConfig) *configv1.Job {
	if len(c.GetStaging().GetCommands()) > 0 {
		return c.GetStaging()
	}
	return c.GetExecute()
}

// moment is what happened to a pull request, as far as it matters here.
type moment int

const (
	offered moment = iota + 1 // it has a head, or a base, that it did not have before
	merged
	dropped // closed without a merge
)

// moments says when each is; the first line that fits counts.
func moments() []struct {
	action string
	holds  func(*eventv1.PullRequestEvent) bool
	moment moment
} {
	always := func(*eventv1.PullRequestEvent) bool { return true }
	return []struct {
		action string
		holds  func(*eventv1.PullRequestEvent) bool
		moment moment
	}{
		{"opened", always, offered},
		{"reopened", always, offered},
		{"synchronize", always, offered},
		{"edited", func(e *eventv1.PullRequestEvent) bool {
			return e.GetPreviousBaseRef() != "" && e.GetPullRequest().GetOpen()
		}, offered},
		{"closed", func(e *eventv1.PullRequestEvent) bool { return e.GetPullRequest().GetMerged() }, merged},
		{"closed", always, dropped},
	}
}

// branch is what a base branch is for.
type branch int

const (
	integration branch = iota + 1
	production
)

// triggers is the table of what a pull request triggers, by what happened and by
// its base branch.
func triggers() []struct {
	moment moment
	into   branch
	action schedulerv1.Build_Action
} {
	return []struct {
		moment moment
		into   branch
		action schedulerv1.Build_Action
	}{
		{offered, integration, schedulerv1.Build_ACTION_TEST},
		{offered, production, schedulerv1.Build_ACTION_STAGING},
		{merged, integration, schedulerv1.Build_ACTION_DEPLOY_STAGING},
		{merged, production, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION},
	}
}

// intent is what an event about a pull request asks for.
type intent struct {
	event  *eventv1.Event
	pull   *eventv1.PullRequest
	moment moment
	action schedulerv1.Build_Action // unspecified for dropped
	sha    string                   // to be built
	ref    string                   // where it is found
	fork   bool
}

// intend reads an event. Where nothing is to be done for it, whatever else is
// known, it says so by a decision instead.
func (s *Service) intend(event *eventv1.Event) (intent, *eventv1.Decision) {
	if event.GetName() != "pull_request" {
		return intent{}, ignored(eventv1.Reason_REASON_EVENT_IGNORED, "nothing is built for %s", event.GetName())
	}
	payload, pull := event.GetPullRequest(), event.GetPullRequest().GetPullRequest()
	if event.GetRepository().GetId() == 0 || pull.GetNumber() == 0 || pull.GetHead().GetSha() == "" {
		return intent{}, &eventv1.Decision{
			Reason: eventv1.Reason_REASON_MALFORMED, Text: "malformed: a pull_request event without a repository, a number or a head",
		}
	}
	i := intent{event: event, pull: pull, sha: pull.GetHead().GetSha(), ref: fmt.Sprintf("refs/pull/%d/head", pull.GetNumber())}
	for _, m := range moments() {
		if m.action == event.GetAction() && m.holds(payload) {
			i.moment = m.moment
			break
		}
	}
	base := pull.GetBase().GetRef()
	switch i.moment {
	case 0:
		return intent{}, ignored(eventv1.Reason_REASON_ACTION_IGNORED, "action %s", event.GetAction())
	case dropped:
		return i, nil
	case merged:
		i.sha, i.ref = pull.GetMergeCommitSha(), "refs/heads/"+base
		if i.sha == "" {
			return intent{}, &eventv1.Decision{Reason: eventv1.Reason_REASON_MALFORMED, Text: "malformed: merged without a merge commit"}
		}
	case offered:
		i.fork = pull.GetHead().GetRepository().GetId() != event.GetRepository().GetId()
	}
	into := s.branch(base)
	for _, trigger := range triggers() {
		if trigger.moment == i.moment && trigger.into == into {
			i.action = trigger.action
		}
	}
	if i.action == schedulerv1.Build_ACTION_UNSPECIFIED {
		return intent{}, ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "base branch is %s", base)
	}
	if i.fork && s.ForkPolicy == forkNever {
		return intent{}, ignored(eventv1.Reason_REASON_FORK_IGNORED, "pull requests from forks are not built here")
	}
	return i, nil
}

func (s *Service) branch(name string) branch {
	switch {
	case slices.Contains(s.ProductionBranches, name):
		return production
	case slices.Contains(s.IntegrationBranches, name):
		return integration
	default:
		return 0
	}
}

func ignored(reason eventv1.Reason, format string, args ...any) *eventv1.Decision {
	return &eventv1.Decision{Reason: reason, Text: "ignored: " + fmt.Sprintf(format, args...)}
}

// short is a sha as people read it.
func short(sha string) string { return sha[:min(7, len(sha))] }

// pullRequest is the newest that is known of a pull request.
type pullRequest struct {
	repositoryID int64
	number       int32
	updated      time.Time // zero: nothing is known
	closed       bool
	// moves of its head at updated. GitHub's times are in whole seconds, and
	// within one a branch may move more than once: what came before what is then
	// told by the moves alone.
	moves []move
}

type move struct{ before, after string }

// stale reports whether what an event tells was over before what is known.
func (p *pullRequest) stale(i intent) bool {
	at := i.pull.GetUpdateTime().AsTime()
	switch {
	case p.updated.IsZero() || at.After(p.updated):
		return false
	case at.Before(p.updated):
		return true
	case i.moment != offered:
		return false
	case p.closed:
		return i.event.GetAction() != "reopened"
	}
	left := slices.ContainsFunc(p.moves, func(m move) bool { return m.before == i.sha && m.after != i.sha })
	follows := len(p.moves) > 0 && p.moves[len(p.moves)-1].after == i.event.GetPullRequest().GetBefore()
	return left && !follows
}

// learn takes up what an event tells that is not stale.
func (p *pullRequest) learn(i intent) {
	at := i.pull.GetUpdateTime().AsTime()
	if at.After(p.updated) {
		p.updated, p.moves = at, nil
	}
	p.closed = i.moment != offered
	if i.moment != offered {
		return
	}
	if m := (move{i.event.GetPullRequest().GetBefore(), i.sha}); !slices.Contains(p.moves, m) {
		p.moves = append(p.moves, m)
	}
}

// The moves as one column: before>after, separated by spaces.
func formatMoves(moves []move) string {
	var text []string
	for _, m := range moves {
		text = append(text, m.before+">"+m.after)
	}
	return strings.Join(text, " ")
}

func parseMoves(text string) []move {
	var moves []move
	for field := range strings.FieldsSeq(text) {
		before, after, _ := strings.Cut(field, ">")
		moves = append(moves, move{before, after})
	}
	return moves
}
