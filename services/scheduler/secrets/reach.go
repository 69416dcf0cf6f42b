package secrets

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

const (
	mostBranches  = 20
	longestBranch = 200 // bytes of a glob
)

// plainBranch is a name that a shell takes as it is.
var plainBranch = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)

// reach says which builds get a secret.
type reach struct {
	uses     uses
	branches []string
}

// uses are bits of 1 << Secret.Use.
type uses int64

func usesOf(all []schedulerv1.Secret_Use) uses {
	var set uses
	for _, use := range all {
		set |= 1 << use
	}
	return set
}

// of what was pushed or merged.
func unasked() uses {
	return usesOf([]schedulerv1.Secret_Use{schedulerv1.Secret_USE_PUSHES, schedulerv1.Secret_USE_TAGS, schedulerv1.Secret_USE_DEPLOYS})
}

func (u uses) has(use schedulerv1.Secret_Use) bool { return u&(1<<use) != 0 }

func (u uses) list() []schedulerv1.Secret_Use {
	var all []schedulerv1.Secret_Use
	for use := schedulerv1.Secret_USE_PULL_REQUESTS; use <= schedulerv1.Secret_USE_DEPLOYS; use++ {
		if u.has(use) {
			all = append(all, use)
		}
	}
	return all
}

// words are the uses as forge secrets set --for takes them.
func (u uses) words() string {
	var all []string
	for _, use := range u.list() {
		all = append(all, word(use))
	}
	return strings.Join(all, ",")
}

func word(use schedulerv1.Secret_Use) string { return strings.ReplaceAll(wording.Value(use), " ", "-") }

// UseOf is what a build uses a secret for. What nobody knows to be pushed or merged
// counts as a pull request.
func UseOf(b *store.Build) schedulerv1.Secret_Use {
	switch {
	case trigger.ActionOf(b.GetAction()).Deploys:
		return schedulerv1.Secret_USE_DEPLOYS
	case b.GetAction() == schedulerv1.Build_ACTION_RELEASE, ofRef(b) && strings.HasPrefix(b.GetRef(), "refs/tags/"):
		return schedulerv1.Secret_USE_TAGS
	case ofRef(b), b.GetAction() == schedulerv1.Build_ACTION_SCHEDULE:
		return schedulerv1.Secret_USE_PUSHES
	default:
		return schedulerv1.Secret_USE_PULL_REQUESTS
	}
}

// environmentOf is the environment whose own secrets a build gets; "" for none. A preview
// has none: what runs there nobody has merged.
func environmentOf(b *store.Build) string {
	if trigger.IsPreview(b.GetAction()) {
		return ""
	}
	return b.GetEnvironment()
}

// ofRef reports whether a build is of a branch or a tag of the repository itself, where
// only who has write access puts commits: it was pushed, or asked for by hand.
func ofRef(b *store.Build) bool {
	return b.GetAction() == schedulerv1.Build_ACTION_PUSH || b.GetAction() == schedulerv1.Build_ACTION_MANUAL
}

// branchOf is the branch that a build is of, or that it is or was merged into.
func branchOf(b *store.Build) string {
	branch, isBranch := strings.CutPrefix(b.GetRef(), "refs/heads/")
	switch UseOf(b) {
	case schedulerv1.Secret_USE_TAGS:
		return ""
	case schedulerv1.Secret_USE_PUSHES:
		if isBranch {
			return branch
		}
		return ""
	default:
		if b.GetBaseRef() == "" && isBranch { // a push deploys
			return branch
		}
		return strings.TrimPrefix(b.GetBaseRef(), "refs/heads/")
	}
}

// bars says why a build does not get what is kept, and by which command it would; ""
// where it does.
func (s kept) bars(b *store.Build) string {
	what := fmt.Sprintf(s.kind.barred, s.name)
	command := fmt.Sprintf("%s %s --repo %s", s.kind.command, s.name, wording.FullName(b.GetRepository()))
	use := UseOf(b)
	if s.environment == "" && !s.uses.has(use) {
		return fmt.Sprintf("%s is not for %s: %s --for %s", what, wording.Value(use), command, (s.uses | 1<<use).words())
	}
	branch := branchOf(b)
	if len(s.branches) == 0 || branch != "" && slices.ContainsFunc(s.branches, func(glob string) bool { return doublestar.MatchUnvalidated(glob, branch) }) {
		return ""
	}
	if branch == "" {
		return fmt.Sprintf("%s is only for branches %s, and a tag is of none: set it once more without --branches", what, strings.Join(s.branches, ", "))
	}
	if !plainBranch.MatchString(branch) { // the command is for a shell
		branch = "BRANCH"
	}
	widened := slices.Concat(s.branches, []string{branch})
	reach := " --for " + s.uses.words()
	if s.environment != "" {
		reach = " --environment " + s.environment
	}
	return fmt.Sprintf("%s is only for branches %s: %s%s --branches %s", what, strings.Join(s.branches, ", "), command, reach, strings.Join(widened, ","))
}

// reaching is a request that says which builds get what it sets.
type reaching interface {
	GetEnvironment() string
	GetUses() []schedulerv1.Secret_Use
	GetBranches() []string
}

// reachOf is what a request asks for.
func reachOf(req reaching) (reach, error) {
	for _, use := range req.GetUses() {
		if use < schedulerv1.Secret_USE_PULL_REQUESTS || use > schedulerv1.Secret_USE_DEPLOYS {
			return reach{}, fault.New(fault.Invalid, "uses: expected pull requests, pushes, tags or deploys")
		}
	}
	if req.GetEnvironment() != "" && len(req.GetUses()) > 0 {
		return reach{}, fault.New(fault.Invalid, "uses: a secret of an environment is for deploys there alone; set another for the rest")
	}
	if len(req.GetBranches()) > mostBranches {
		return reach{}, fault.Newf(fault.Invalid, "branches: at most %d", mostBranches)
	}
	for _, glob := range req.GetBranches() {
		if glob == "" || len(glob) > longestBranch || strings.ContainsAny(glob, "\n\x00") || !doublestar.ValidatePattern(glob) {
			return reach{}, fault.Newf(fault.Invalid, "branches: %q is not a pattern of branches, such as main or release/*", glob)
		}
	}
	asked := reach{usesOf(req.GetUses()), req.GetBranches()}
	if asked.uses == 0 && req.GetEnvironment() == "" {
		asked.uses = unasked()
	}
	return asked, nil
}
