package trigger

import (
	"fmt"
	"slices"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// What becomes of pull requests from forks.
const (
	ForkApprove = "approve"
	ForkRun     = "run"
	ForkNever   = "never"
)

// Policy is what a server has set of what events ask for.
type Policy struct {
	IntegrationBranches, ProductionBranches Branches
	// Forks is what becomes of pull requests from forks: approve, run or never.
	Forks string
	// TrustedBots are logins of bots whose pull requests get secrets, with or without
	// the [bot] at their end.
	TrustedBots []string
}

// Distrusts reports whether an intent is the pull request of a bot whose commits
// nobody has read. An integration branch on its way into production holds what was
// merged, whoever offers it, as Forge itself does.
func (p Policy) Distrusts(i Intent) bool {
	author := i.Pull.GetAuthor()
	// No person's login has brackets.
	bot := author.GetType() == eventv1.Account_TYPE_BOT || strings.HasSuffix(author.GetLogin(), botSuffix)
	if !bot || i.Kind == PullRequestMerged {
		return false
	}
	promotes := p.BranchOf(i.Event.GetRepository(), i.Pull.GetHead().GetRef()) == integration &&
		p.BranchOf(i.Event.GetRepository(), i.Pull.GetBase().GetRef()) == production
	if promotes && !i.Fork {
		return false
	}
	name := botName(author.GetLogin())
	return !slices.ContainsFunc(p.TrustedBots, func(trusted string) bool { return botName(trusted) == name })
}

// botSuffix is how GitHub ends the login of an App's bot.
const botSuffix = "[bot]"

func botName(login string) string { return strings.TrimSuffix(strings.ToLower(login), botSuffix) }

// Check is an error where something is set wrong.
func (p Policy) Check() error {
	if err := p.IntegrationBranches.Check(); err != nil {
		return fmt.Errorf("integration branches: %w", err)
	}
	if err := p.ProductionBranches.Check(); err != nil {
		return fmt.Errorf("production branches: %w", err)
	}
	switch p.Forks {
	case ForkApprove, ForkRun, ForkNever:
		return nil
	default:
		return fmt.Errorf("fork policy %q: use approve, run or never", p.Forks)
	}
}

// PromotesTo is the branch of a repository that promotions go to; "" where there
// is none.
func (p Policy) PromotesTo(repository *eventv1.Repository) string {
	return p.ProductionBranches.First(repository.GetDefaultBranch())
}

// Branch is what a base branch is for.
type Branch int

const (
	integration Branch = iota + 1
	production
)

// Trigger is a row of the table of what is built.
type Trigger struct {
	Kind   Kind
	Into   Branch
	Action schedulerv1.Build_Action
}

// Triggers is the table of what is built, by what happened and by the base
// branch. What a push builds, .forge.yml names itself.
func Triggers() []Trigger {
	return []Trigger{
		{PullRequestOffered, integration, schedulerv1.Build_ACTION_TEST},
		{PullRequestOffered, production, schedulerv1.Build_ACTION_STAGING},
		{PullRequestMerged, integration, schedulerv1.Build_ACTION_DEPLOY_STAGING},
		{PullRequestMerged, production, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION},
		{PullRequestMarked, integration, schedulerv1.Build_ACTION_TEST},
		{PullRequestMarked, production, schedulerv1.Build_ACTION_STAGING},
		{PullRequestEnded, integration, schedulerv1.Build_ACTION_CLOSED},
		{PullRequestEnded, production, schedulerv1.Build_ACTION_CLOSED},
		{GroupRequested, integration, schedulerv1.Build_ACTION_TEST},
		{GroupRequested, production, schedulerv1.Build_ACTION_STAGING},
		{RebuildAsked, integration, schedulerv1.Build_ACTION_TEST},
		{RebuildAsked, production, schedulerv1.Build_ACTION_STAGING},
	}
}

// Deploys reports whether merges into a branch deploy by an action.
func (p Policy) Deploys(repository *eventv1.Repository, branch string, action schedulerv1.Build_Action) bool {
	return slices.ContainsFunc(Triggers(), func(row Trigger) bool {
		return row.Kind == PullRequestMerged && row.Action == action && row.Into == p.BranchOf(repository, branch)
	})
}

// LookUp looks up what is built, by kind and base branch. Patterns of a .forge.yml, if
// there are any, say in place of the server's settings which base branches count;
// these then only say which of them are for production.
func (p Policy) LookUp(i Intent, named []string) (Intent, *eventv1.Decision) {
	base := i.Pull.GetBase().GetRef()
	into := p.BranchOf(i.Event.GetRepository(), base)
	why := "base branch is " + base
	switch {
	case len(named) == 0:
	case !MatchAny(named, base):
		into, why = 0, fmt.Sprintf("pull_request.branches in .forge.yml of %s does not name it", base)
	case into == 0:
		into = integration
	}
	i.Action = schedulerv1.Build_ACTION_UNSPECIFIED
	for _, row := range Triggers() {
		if row.Kind == i.Kind && row.Into == into {
			i.Action = row.Action
		}
	}
	if i.Action == schedulerv1.Build_ACTION_UNSPECIFIED {
		return Intent{}, wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "%s", why)
	}
	return i, p.ForkDecision(i.Fork)
}

// ForkDecision is nil where forks are built, if only once somebody approves.
func (p Policy) ForkDecision(fork bool) *eventv1.Decision {
	if fork && p.Forks == ForkNever {
		return wording.Ignored(eventv1.Reason_REASON_FORK_IGNORED, "pull requests from forks are not built here")
	}
	return nil
}

// BranchOf is what a base branch of a repository is for; 0 where nothing is built
// for it. A branch that both settings mean is for production.
func (p Policy) BranchOf(repository *eventv1.Repository, name string) Branch {
	switch {
	case p.ProductionBranches.Match(name, repository.GetDefaultBranch()):
		return production
	case p.IntegrationBranches.Match(name, repository.GetDefaultBranch()):
		return integration
	default:
		return 0
	}
}
