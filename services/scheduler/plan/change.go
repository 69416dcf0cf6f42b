package plan

import (
	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// WithChange adds to a request what an event changes, so that `paths` count. A
// deploy takes along whatever was merged before, what is torn down was built by any
// of its commits, and what a person asks for is built: there they do not.
func WithChange(i trigger.Intent, req *configv1.GetBuildConfigRequest) *configv1.GetBuildConfigRequest {
	if partOf(i.Action) == configv1.GetBuildConfigRequest_PART_UNSPECIFIED {
		return req
	}
	switch payload := i.Event.GetPayload().(type) {
	case *eventv1.Event_PullRequest:
		req.Change = &configv1.GetBuildConfigRequest_PullRequest{PullRequest: i.Pull.GetNumber()}
	case *eventv1.Event_Push:
		req.Change = &configv1.GetBuildConfigRequest_BaseSha{BaseSha: payload.Push.GetBefore()}
	case *eventv1.Event_MergeGroup:
		req.Change = &configv1.GetBuildConfigRequest_BaseSha{BaseSha: payload.MergeGroup.GetBaseSha()}
	}
	if req.GetChange() != nil {
		req.Part = partOf(i.Action)
	}
	return req
}

// partOf is the part of the file that an action runs. Paths count for those alone.
func partOf(action schedulerv1.Build_Action) configv1.GetBuildConfigRequest_Part {
	return map[schedulerv1.Build_Action]configv1.GetBuildConfigRequest_Part{
		schedulerv1.Build_ACTION_TEST:    configv1.GetBuildConfigRequest_PART_EXECUTE,
		schedulerv1.Build_ACTION_STAGING: configv1.GetBuildConfigRequest_PART_STAGING,
		schedulerv1.Build_ACTION_PUSH:    configv1.GetBuildConfigRequest_PART_PUSH,
	}[action]
}

// skip ends a build that nothing is run for before it begins. It is kept so that
// GitHub is told: a check that is required would wait for ever.
func skip(b *store.Build, reason schedulerv1.Build_Reason, why eventv1.Reason, message string) *eventv1.Decision {
	b.State, b.Reason, b.EndTime = schedulerv1.Build_STATE_CANCELLED, reason, b.GetCreateTime()
	b.Message = message
	decided := wording.Ignored(why, "%s", message)
	decided.BuildIds = []string{b.GetId()}
	return decided
}
