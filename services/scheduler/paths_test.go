package scheduler

import (
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestPathsCountForWhatNobodyAskedFor(t *testing.T) {
	pull := &eventv1.PullRequest{Number: 12}
	const (
		execute = configv1.GetBuildConfigRequest_PART_EXECUTE
		staging = configv1.GetBuildConfigRequest_PART_STAGING
		push    = configv1.GetBuildConfigRequest_PART_PUSH
	)
	number := func(part configv1.GetBuildConfigRequest_Part) *configv1.GetBuildConfigRequest {
		return &configv1.GetBuildConfigRequest{Change: &configv1.GetBuildConfigRequest_PullRequest{PullRequest: 12}, Part: part}
	}
	base := func(part configv1.GetBuildConfigRequest_Part) *configv1.GetBuildConfigRequest {
		return &configv1.GetBuildConfigRequest{Change: &configv1.GetBuildConfigRequest_BaseSha{BaseSha: "bbb"}, Part: part}
	}
	for name, c := range map[string]struct {
		event  *eventv1.Event
		action schedulerv1.Build_Action
		want   *configv1.GetBuildConfigRequest
	}{
		"a pull request":  {&eventv1.Event{Payload: &eventv1.Event_PullRequest{}}, schedulerv1.Build_ACTION_TEST, number(execute)},
		"into production": {&eventv1.Event{Payload: &eventv1.Event_PullRequest{}}, schedulerv1.Build_ACTION_STAGING, number(staging)},
		"a push":          {&eventv1.Event{Payload: &eventv1.Event_Push{Push: &eventv1.PushEvent{Before: "bbb"}}}, schedulerv1.Build_ACTION_PUSH, base(push)},
		"a merge group": {
			&eventv1.Event{Payload: &eventv1.Event_MergeGroup{MergeGroup: &eventv1.MergeGroupEvent{BaseSha: "bbb"}}},
			schedulerv1.Build_ACTION_TEST, base(execute),
		},
		"a merge":   {&eventv1.Event{Payload: &eventv1.Event_PullRequest{}}, schedulerv1.Build_ACTION_DEPLOY_STAGING, &configv1.GetBuildConfigRequest{}},
		"a comment": {&eventv1.Event{Payload: &eventv1.Event_IssueComment{}}, schedulerv1.Build_ACTION_TEST, &configv1.GetBuildConfigRequest{}},
		"by hand":   {nil, schedulerv1.Build_ACTION_TEST, &configv1.GetBuildConfigRequest{}},
	} {
		got := plan.WithChange(trigger.Intent{Event: c.event, Pull: pull, Action: c.action}, &configv1.GetBuildConfigRequest{})
		if !proto.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
