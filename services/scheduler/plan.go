package scheduler

import (
	"fmt"
	"slices"

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
	// environment is what it deploys to; empty for tests.
	environment string
	// promotes: once it has passed, or where .forge.yml has no job for it, the
	// branch it was merged into is promoted to production.
	promotes bool
}

func purposeOf(action schedulerv1.Build_Action) purpose {
	return map[schedulerv1.Build_Action]purpose{
		schedulerv1.Build_ACTION_TEST:              {name: "test", job: (*configv1.BuildConfig).GetExecute},
		schedulerv1.Build_ACTION_STAGING:           {name: "staging", job: stagingOrExecute},
		schedulerv1.Build_ACTION_DEPLOY_STAGING:    {name: "deploy-staging", job: (*configv1.BuildConfig).GetDeployStaging, environment: "staging", promotes: true},
		schedulerv1.Build_ACTION_DEPLOY_PRODUCTION: {name: "deploy-production", job: (*configv1.BuildConfig).GetDeployProduction, environment: "production"},
		schedulerv1.Build_ACTION_PUSH:              {name: "push", job: pushExecute},
	}[action]
}

func pushExecute(c *configv1.BuildConfig) *configv1.Job { return c.GetPush().GetExecute() }

// deployTo is the action that deploys to an environment; unspecified where there
// is none of that name.
func deployTo(environment string) schedulerv1.Build_Action {
	return map[string]schedulerv1.Build_Action{
		"staging":    schedulerv1.Build_ACTION_DEPLOY_STAGING,
		"production": schedulerv1.Build_ACTION_DEPLOY_PRODUCTION,
	}[environment]
}

func stagingOrExecute(c *configv1.BuildConfig) *configv1.Job {
	if len(c.GetStaging().GetCommands()) > 0 {
		return c.GetStaging()
	}
	return c.GetExecute()
}

// moment is what happened, as far as it matters here.
type moment int

const (
	offered   moment = iota + 1 // a pull request has a head, or a base, that it did not have before
	merged                      // a pull request was
	dropped                     // it was closed without a merge
	grouped                     // the merge queue asks for checks of a group
	ungrouped                   // it gives the group up
	pushed                      // a branch or a tag has a commit that it did not have before
	pressed                     // somebody pressed a button at a check
	commented                   // somebody wrote a comment
	installed                   // the App was installed, removed or changed

	asked    // somebody wants it built, though it may have been built before
	halted   // somebody wants it stopped
	approved // somebody lets a fork's commit run
)

// moments says which events bring what; the first line that fits counts.
func moments() []struct {
	event, action string // "": whatever the action
	holds         func(*eventv1.Event) bool
	moment        moment
} {
	always := func(*eventv1.Event) bool { return true }
	return []struct {
		event, action string
		holds         func(*eventv1.Event) bool
		moment        moment
	}{
		{"pull_request", "opened", always, offered},
		{"pull_request", "reopened", always, offered},
		{"pull_request", "synchronize", always, offered},
		{"pull_request", "edited", func(e *eventv1.Event) bool {
			return e.GetPullRequest().GetPreviousBaseRef() != "" && e.GetPullRequest().GetPullRequest().GetOpen()
		}, offered},
		{"pull_request", "closed", func(e *eventv1.Event) bool { return e.GetPullRequest().GetPullRequest().GetMerged() }, merged},
		{"pull_request", "closed", always, dropped},
		{"merge_group", "checks_requested", always, grouped},
		{"merge_group", "destroyed", always, ungrouped},
		{"push", "", always, pushed},
		{"check_run", "rerequested", always, pressed},
		{"check_run", "requested_action", always, pressed},
		{"check_suite", "rerequested", always, pressed},
		{"issue_comment", "created", always, commented},
		{"installation", "", always, installed},
	}
}

// momentOf is 0, with a decision, for what brings nothing.
func momentOf(event *eventv1.Event) (moment, *eventv1.Decision) {
	known := false
	for _, m := range moments() {
		if m.event != event.GetName() {
			continue
		}
		known = true
		if (m.action == "" || m.action == event.GetAction()) && m.holds(event) {
			return m.moment, nil
		}
	}
	if known {
		return 0, ignored(eventv1.Reason_REASON_ACTION_IGNORED, "action %s", event.GetAction())
	}
	return 0, ignored(eventv1.Reason_REASON_EVENT_IGNORED, "nothing is built for %s", event.GetName())
}

// branch is what a base branch is for.
type branch int

const (
	integration branch = iota + 1
	production
)

type trigger struct {
	moment moment
	into   branch
	action schedulerv1.Build_Action
}

// triggers is the table of what is built, by what happened and by the base
// branch. What a push builds, .forge.yml names itself.
func triggers() []trigger {
	return []trigger{
		{offered, integration, schedulerv1.Build_ACTION_TEST},
		{offered, production, schedulerv1.Build_ACTION_STAGING},
		{merged, integration, schedulerv1.Build_ACTION_DEPLOY_STAGING},
		{merged, production, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION},
		{grouped, integration, schedulerv1.Build_ACTION_TEST},
		{grouped, production, schedulerv1.Build_ACTION_STAGING},
		{asked, integration, schedulerv1.Build_ACTION_TEST},
		{asked, production, schedulerv1.Build_ACTION_STAGING},
	}
}

// intent is one thing that an event, or a call, asks for.
type intent struct {
	event *eventv1.Event // of a call: as far as there is one
	// pull is the pull request; where there is none, number 0 with the title and
	// the base branch of what is built.
	pull   *eventv1.PullRequest
	moment moment
	action schedulerv1.Build_Action // unspecified where nothing is built
	sha    string                   // to be built
	ref    string                   // where it is found
	fork   bool
	// voucher is who has write access and stands for a fork's commit; "": nobody.
	voucher string
	// build is what a button was pressed for; "": the whole pull request.
	build string
}

// builds reports whether something may be built, and .forge.yml is to be read.
func (i intent) builds() bool {
	return i.action != schedulerv1.Build_ACTION_UNSPECIFIED && slices.Contains([]moment{offered, merged, grouped, pushed, asked}, i.moment)
}

// intend reads an event that needs nothing else to be understood. Where nothing
// is to be done for it, whatever else is known, it says so by a decision instead.
func (s *Service) intend(event *eventv1.Event, m moment) (intent, *eventv1.Decision) {
	switch m {
	case pushed:
		return s.intendPush(event)
	case grouped, ungrouped:
		return s.intendGroup(event, m)
	default:
		return s.intendPull(event, m)
	}
}

func (s *Service) intendPull(event *eventv1.Event, m moment) (intent, *eventv1.Decision) {
	pull := event.GetPullRequest().GetPullRequest()
	if event.GetRepository().GetId() == 0 || pull.GetNumber() == 0 || pull.GetHead().GetSha() == "" {
		return intent{}, malformed("a pull_request event without a repository, a number or a head")
	}
	if m == merged && pull.GetMergeCommitSha() == "" {
		return intent{}, malformed("merged without a merge commit")
	}
	return s.aim(intent{event: event, pull: pull, moment: m})
}

// aim fills in what is built of a pull request.
func (s *Service) aim(i intent) (intent, *eventv1.Decision) {
	i.sha, i.ref = i.pull.GetHead().GetSha(), fmt.Sprintf("refs/pull/%d/head", i.pull.GetNumber())
	if i.moment == dropped {
		return i, nil
	}
	if i.moment == merged {
		i.sha, i.ref = i.pull.GetMergeCommitSha(), "refs/heads/"+i.pull.GetBase().GetRef()
	} else {
		i.fork = i.pull.GetHead().GetRepository().GetId() != i.event.GetRepository().GetId()
	}
	aimed, decided := s.trigger(i)
	if i.moment == offered && decided.GetReason() == eventv1.Reason_REASON_BRANCH_IGNORED {
		return i, nil // it may have had another base, with tests that are over now
	}
	return aimed, decided
}

// trigger looks up what is built, by moment and base branch.
func (s *Service) trigger(i intent) (intent, *eventv1.Decision) {
	base := i.pull.GetBase().GetRef()
	into := s.branch(base)
	for _, row := range triggers() {
		if row.moment == i.moment && row.into == into {
			i.action = row.action
		}
	}
	if i.action == schedulerv1.Build_ACTION_UNSPECIFIED {
		return intent{}, ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "base branch is %s", base)
	}
	return i, s.forkDecision(i.fork)
}

// forkDecision is nil where forks are built, if only once somebody approves.
func (s *Service) forkDecision(fork bool) *eventv1.Decision {
	if fork && s.ForkPolicy == forkNever {
		return ignored(eventv1.Reason_REASON_FORK_IGNORED, "pull requests from forks are not built here")
	}
	return nil
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

func malformed(what string) *eventv1.Decision {
	return &eventv1.Decision{Reason: eventv1.Reason_REASON_MALFORMED, Text: "malformed: " + what}
}

// short is a sha as people read it.
func short(sha string) string { return sha[:min(7, len(sha))] }
