package wording

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestValuesReadAsPeopleSayThem(t *testing.T) {
	for want, value := range map[string]protoreflect.Enum{
		"timed out":         schedulerv1.Build_STATE_TIMED_OUT,
		"passed":            schedulerv1.Step_STATE_PASSED,
		"deploy production": schedulerv1.Build_ACTION_DEPLOY_PRODUCTION,
		"pending":           gatewayv1.Delivery_STATE_PENDING,
		"action ignored":    eventv1.Reason_REASON_ACTION_IGNORED,
		"unspecified":       schedulerv1.Build_STATE_UNSPECIFIED,
		"99":                schedulerv1.Build_State(99),
	} {
		if got := Value(value); got != want {
			t.Errorf("%v reads %q, want %q", value, got, want)
		}
	}
}

func TestShasAreShort(t *testing.T) {
	for sha, want := range map[string]string{"0123456789abcdef": "0123456", "0123456": "0123456", "012": "012", "": ""} {
		if got := Short(sha); got != want {
			t.Errorf("%q is short as %q, want %q", sha, got, want)
		}
	}
}

func TestOneIsNotSeveral(t *testing.T) {
	for n, want := range map[int]string{0: "0 jobs", 1: "1 job", 2: "2 jobs"} {
		if got := Count(n, "job"); got != want {
			t.Errorf("%d reads %q, want %q", n, got, want)
		}
	}
}

func TestDecisionsSayTheirReason(t *testing.T) {
	shop := &eventv1.Repository{Owner: "octo", Name: "shop"}
	for _, c := range []struct {
		got    *eventv1.Decision
		reason eventv1.Reason
		text   string
	}{
		{Noted("repository is %s now", FullName(shop)), eventv1.Reason_REASON_NOTED, "repository is octo/shop now"},
		{Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "base branch is %s", "x"), eventv1.Reason_REASON_BRANCH_IGNORED, "ignored: base branch is x"},
		{ActionIgnored(&eventv1.Event{Action: "pinned"}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action pinned"},
	} {
		if c.got.GetReason() != c.reason || c.got.GetText() != c.text {
			t.Errorf("%v, want %v with %q", c.got, c.reason, c.text)
		}
	}
}
