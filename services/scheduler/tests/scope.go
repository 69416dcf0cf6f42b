package tests

import (
	"fmt"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// mainScope has what was merged, or pushed to a branch that people merge into.
const mainScope = ""

const tagRef = "refs/tags/"

// pullScope is that of a pull request.
func pullScope(number int32) string { return fmt.Sprintf("pull/%d", number) }

// scopeOf is whose results those of a build are, and the branch they speak of.
func scopeOf(p trigger.Policy, b *store.Build) (scope, branch string) {
	own := "ref/" + b.GetRef()
	switch {
	case b.GetFork(): // whatever else is said of it
		return pullScope(b.GetPullRequest()), ""
	case b.GetEnvironment() != "" && !trigger.IsPreview(b.GetAction()):
		return mainScope, b.GetBaseRef()
	case b.GetPullRequest() != 0:
		return pullScope(b.GetPullRequest()), ""
	case b.GetAction() != schedulerv1.Build_ACTION_PUSH || b.GetDeliveryId() == "" && b.GetRetryOf() == "":
		return own, "" // a merge group's, or one that a call has imagined
	case strings.HasPrefix(b.GetRef(), tagRef):
		return mainScope, ""
	}
	branch, isBranch := strings.CutPrefix(b.GetRef(), trigger.BranchRef)
	if !isBranch || branch != b.GetRepository().GetDefaultBranch() && p.BranchOf(b.GetRepository(), branch) == 0 {
		return own, ""
	}
	return mainScope, branch
}

// tested is what a build has tested: its commit or, where that was merged first, both.
func tested(b *store.Build) string {
	if b.GetIntoSha() != "" {
		return b.GetSha() + "+" + b.GetIntoSha()
	}
	return b.GetSha()
}
