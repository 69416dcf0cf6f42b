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

// Whoever adds a reason says here what it is of: of what waits, which has a text that people
// read in a status, on a page and in a terminal, or of what has ended.
func TestEveryReasonIsOfWhatWaitsOrHasEnded(t *testing.T) {
	ended := map[schedulerv1.Build_Reason]bool{}
	for _, reason := range []schedulerv1.Build_Reason{
		schedulerv1.Build_REASON_UNSPECIFIED, schedulerv1.Build_REASON_SUPERSEDED, schedulerv1.Build_REASON_CANCEL_ASKED, schedulerv1.Build_REASON_PULL_REQUEST_CLOSED,
		schedulerv1.Build_REASON_MERGE_GROUP_DESTROYED, schedulerv1.Build_REASON_STEP_FAILED, schedulerv1.Build_REASON_OUT_OF_MEMORY, schedulerv1.Build_REASON_CONFIG_INVALID,
		schedulerv1.Build_REASON_FORBIDDEN, schedulerv1.Build_REASON_SOURCE_UNAVAILABLE, schedulerv1.Build_REASON_SOURCE_REFUSED, schedulerv1.Build_REASON_START_FAILED,
		schedulerv1.Build_REASON_NOT_RUNNABLE, schedulerv1.Build_REASON_LOST, schedulerv1.Build_REASON_ALREADY_CONTAINED, schedulerv1.Build_REASON_NO_MATCHING_PATHS,
		schedulerv1.Build_REASON_BASE_CHANGED, schedulerv1.Build_REASON_SECRET_UNAVAILABLE, schedulerv1.Build_REASON_SKIP_ASKED, schedulerv1.Build_REASON_NEED_FAILED,
		schedulerv1.Build_REASON_CONDITION, schedulerv1.Build_REASON_FAIL_FAST, schedulerv1.Build_REASON_CARRIED, schedulerv1.Build_REASON_JOBS,
		schedulerv1.Build_REASON_CONFIG_ABSENT, schedulerv1.Build_REASON_OUT_OF_DISK, schedulerv1.Build_REASON_MERGE_CONFLICT, schedulerv1.Build_REASON_ARTIFACT,
		schedulerv1.Build_REASON_IMAGE_BUILD, schedulerv1.Build_REASON_UNWANTED,
	} {
		ended[reason] = true
	}
	texts := map[string]schedulerv1.Build_Reason{}
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		text, waits := Waits(reason)
		if waits == ended[reason] {
			t.Errorf("%v is of what waits: %v; of what has ended: %v", reason, waits, ended[reason])
		}
		if same, twice := texts[text]; waits && (text == "" || twice) {
			t.Errorf("%v reads %q, as %v does", reason, text, same)
		}
		texts[text] = reason
	}
}

func TestBecauseIsTheMessageOrElseWhatItWaitsFor(t *testing.T) {
	for _, c := range []struct {
		state   schedulerv1.Build_State
		reason  schedulerv1.Build_Reason
		message string
		want    string
	}{
		{schedulerv1.Build_STATE_STARTING, schedulerv1.Build_REASON_IMAGE_PULL, "pulling image alpine: 1 MiB of 2 MiB", "pulling image alpine: 1 MiB of 2 MiB"},
		{schedulerv1.Build_STATE_STARTING, schedulerv1.Build_REASON_IMAGE_PULL, "", "its image is being pulled"},
		{schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, "", ""},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_CONCURRENCY, "", ""},
		{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_STEP_FAILED, "exit code 1", "exit code 1"},
	} {
		if got := Because(&schedulerv1.Build{State: c.state, Reason: c.reason, Message: c.message}); got != c.want {
			t.Errorf("%v, %v, %q: because %q, want %q", c.state, c.reason, c.message, got, c.want)
		}
	}
}
