package content

import (
	"fmt"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// tier is how far a build is trusted.
type tier int32

const (
	tierFork tier = iota + 1
	// Somebody with write access has pushed it, and nobody has merged it.
	tierUnmerged
	tierMerged
	tierEnvironment
)

// scope is where a build's caches lie.
type scope struct {
	tier tier
	name string
}

// merged is the scope of what was merged or pushed to a branch that is built upon,
// and of tags.
const merged = "merged"

// Trusted are the branches that others are built upon, besides the default branch of
// each repository.
type Trusted struct{ Branches trigger.Branches }

// scopeOf is where a build writes. It is of the build alone, never of what the build
// says.
func (s *Service) scopeOf(b *store.Build) scope {
	environment := b.GetEnvironment()
	branch, isBranch := strings.CutPrefix(b.GetRef(), "refs/heads/")
	tag := strings.HasPrefix(b.GetRef(), "refs/tags/")
	told := b.GetDeliveryId() != ""                  // by GitHub, not by somebody's call
	standard := b.GetRepository().GetDefaultBranch() // "" where it is not known
	built := branch != "" && branch == standard || s.trusted.Branches.Match(branch, standard)
	switch {
	case b.GetFork():
		return scope{tierFork, fmt.Sprintf("fork/%d", b.GetPullRequest())}
	case b.IsRemote():
		return scope{tierUnmerged, "remote/" + strings.ToLower(b.GetRemoteBy())}
	case environment != "" && !trigger.IsPreview(b.GetAction()):
		return scope{tierEnvironment, "environment/" + environment}
	case b.GetAction() == schedulerv1.Build_ACTION_PUSH && told && (tag || isBranch && built),
		b.GetAction() == schedulerv1.Build_ACTION_RELEASE && told && tag,
		b.GetAction() == schedulerv1.Build_ACTION_SCHEDULE && b.GetSchedule() != "" && isBranch && built:
		return scope{tierMerged, merged}
	case b.GetPullRequest() != 0:
		return scope{tierUnmerged, fmt.Sprintf("pull/%d", b.GetPullRequest())}
	case b.GetAction() == schedulerv1.Build_ACTION_PUSH && told:
		return scope{tierUnmerged, "push/" + b.GetRef()}
	default: // a merge queue's commit, and what somebody asks for by hand
		return scope{tierUnmerged, "ref/" + b.GetRef()}
	}
}

// Tier names how far a build is trusted, for what is kept of builds elsewhere: what one
// tier has written is never another's.
func (s *Service) Tier(b *store.Build) string {
	return fmt.Sprintf("%d/%s", b.GetRepository().GetId(), s.scopeOf(b).name)
}

// readable are the scopes that a build reads, its own first. An environment's caches
// are its own: its deploys may have written there what their secrets open.
func readable(own scope) []string {
	if own.tier >= tierMerged {
		return []string{own.name}
	}
	return []string{own.name, merged}
}
