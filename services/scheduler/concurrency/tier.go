package concurrency

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// The tiers of trust, of which none shares a group with another. A stranger's has the
// number of its pull request behind it, that of somebody's working tree their login.
const (
	strange  = "strange/"
	remote   = "remote/"
	proposed = "proposed"
	merged   = "merged"
)

// tierOf is of the build alone, never of what its file says. A fork's commit, and that of
// a bot that the server does not trust, nobody has read.
func (s *Service) tierOf(b *store.Build) string {
	branch, isBranch := strings.CutPrefix(b.GetRef(), trigger.BranchRef)
	standard := b.GetRepository().GetDefaultBranch() // "" where it is not known
	built := isBranch && (branch == standard || s.Trusted.Match(branch, standard))
	tag := strings.HasPrefix(b.GetRef(), trigger.TagRef)
	switch {
	case b.IsRemote():
		return remote + strings.ToLower(b.GetRemoteBy())
	case b.GetFork() || b.GetSecretsWithheld():
		return strange + strconv.Itoa(int(b.GetPullRequest()))
	case b.GetPullRequest() != 0 || strings.HasPrefix(b.GetRef(), trigger.QueueRef):
		return proposed
	}
	switch b.GetAction() {
	case schedulerv1.Build_ACTION_PUSH, schedulerv1.Build_ACTION_RELEASE, schedulerv1.Build_ACTION_SCHEDULE, schedulerv1.Build_ACTION_MANUAL:
		if built || tag {
			return merged
		}
	default:
	}
	return proposed
}

// groupOf is the name of a build's group, and its key, which no other tier has; both are
// empty where it is in none.
func (s *Service) groupOf(b *store.Build) (name, key string) {
	if b.GetEnvironment() != "" {
		return "", ""
	}
	known := variables(b)
	// The file has no $ but in ${…}, and what is filled in is not looked into again.
	name = strings.TrimSpace(os.Expand(b.Config.GetConcurrency().GetGroup(), func(variable string) string { return known[variable] }))
	if name == "" {
		return "", ""
	}
	return name, fmt.Sprintf("%s %s", s.tierOf(b), name) // a tier has no blank
}

// variables are those that the name of a group can hold, as commands see them.
func variables(b *store.Build) map[string]string {
	all := map[string]string{
		"FORGE_ACTION": trigger.ActionOf(b.GetAction()).Name, "FORGE_BASE_REF": b.GetBaseRef(), "FORGE_DEFAULT_BRANCH": b.GetRepository().GetDefaultBranch(),
		"FORGE_REF": b.GetRef(), "FORGE_SCHEDULE": b.GetSchedule(), "FORGE_SHA": b.GetSha(),
	}
	if tag, isTag := strings.CutPrefix(b.GetRef(), trigger.TagRef); isTag {
		all["FORGE_TAG"] = tag
	}
	if b.GetPullRequest() != 0 {
		all["FORGE_PULL_REQUEST"] = strconv.Itoa(int(b.GetPullRequest()))
	}
	return all
}
