package trigger

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// How full refs begin.
const (
	BranchRef = "refs/heads/"
	TagRef    = "refs/tags/"
	// QueueRef is where GitHub's merge queue keeps its groups, which come as
	// merge_group.
	QueueRef = BranchRef + "gh-readonly-queue/"
)

func (Policy) readPush(event *eventv1.Event) (Intent, *eventv1.Decision) {
	push := event.GetPush()
	// An annotated tag is an object of its own: what is built is its commit.
	i := Intent{
		Event: event, Kind: Pushed, Action: schedulerv1.Build_ACTION_PUSH,
		Sha: cmp.Or(push.GetHeadSha(), push.GetAfter()), Ref: push.GetRef(),
		Pull: &eventv1.PullRequest{Title: firstLine(push.GetHeadMessage())},
	}
	switch {
	case event.GetRepository().GetId() == 0 || i.Ref == "" || i.Sha == "":
		return i, Malformed("a push without a repository, a ref or a commit")
	case push.GetDeleted() || strings.Trim(push.GetAfter(), "0") == "":
		return i, wording.Ignored(eventv1.Reason_REASON_ACTION_IGNORED, "%s was deleted", i.Ref)
	case strings.HasPrefix(i.Ref, QueueRef):
		return i, wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "the merge queue's own branches are built as merge groups")
	case !strings.HasPrefix(i.Ref, BranchRef) && !strings.HasPrefix(i.Ref, TagRef):
		return i, wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "%s is neither a branch nor a tag", i.Ref)
	}
	return i, nil
}

// Unwanted is a decision where .forge.yml names other refs than the one pushed
// to. In a pattern * stops at a slash and ** does not.
func Unwanted(push *configv1.Push, ref string) *eventv1.Decision {
	patterns, key := push.GetBranches(), "branches"
	name, isBranch := strings.CutPrefix(ref, BranchRef)
	if !isBranch {
		patterns, key, name = push.GetTags(), "tags", strings.TrimPrefix(ref, TagRef)
	}
	if MatchAny(patterns, name) {
		return nil
	}
	return wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "push.%s in .forge.yml does not name %s", key, name)
}

// MatchAny reports whether one of the patterns of a .forge.yml matches a name.
func MatchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return doublestar.MatchUnvalidated(pattern, name) })
}
