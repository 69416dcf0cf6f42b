package trigger

import (
	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// readRelease reads a release that was published. Its commit is that of its tag, which
// GitHub is asked for.
func (Policy) readRelease(event *eventv1.Event) (Intent, *eventv1.Decision) {
	release := event.GetRelease()
	i := Intent{
		Event: event, Kind: ReleasePublished, Action: schedulerv1.Build_ACTION_RELEASE, Ref: TagRef + release.GetTag(),
		Pull: &eventv1.PullRequest{Title: firstLine(release.GetName())},
	}
	switch {
	case event.GetRepository().GetId() == 0 || release.GetTag() == "":
		return i, Malformed("a release without a repository or a tag")
	case release.GetDraft():
		return i, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the release of %s is a draft", release.GetTag())
	}
	return i, nil
}

// UnwantedRelease is a decision where .forge.yml asks for other releases.
func UnwantedRelease(wanted *configv1.Release, release *eventv1.ReleaseEvent) *eventv1.Decision {
	switch {
	case len(wanted.GetTags()) > 0 && !MatchAny(wanted.GetTags(), release.GetTag()):
		return wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "release.tags in .forge.yml does not name %s", release.GetTag())
	case release.GetPrerelease() && wanted.Prereleases != nil && !wanted.GetPrereleases():
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "%s is a prerelease", release.GetTag())
	}
	return nil
}
