package reporter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/wording"
)

func lasting(b *schedulerv1.Build, d time.Duration) *schedulerv1.Build {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	b.StartTime, b.EndTime = timestamppb.New(begin), timestamppb.New(begin.Add(d))
	return b
}

func failedAt(name string) *schedulerv1.Build {
	exit := int32(1)
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return &schedulerv1.Build{
		State: bad, Reason: schedulerv1.Build_REASON_STEP_FAILED,
		Steps: []*schedulerv1.Step{
			{Number: 1, Name: "lint", State: schedulerv1.Step_STATE_PASSED},
			{
				Number: 2, Name: name, State: schedulerv1.Step_STATE_FAILED, ExitCode: &exit,
				StartTime: timestamppb.New(begin), EndTime: timestamppb.New(begin.Add(34 * time.Second)),
			},
			{Number: 3, Name: "package", State: schedulerv1.Step_STATE_SKIPPED},
		},
	}
}

func reportOf(b *schedulerv1.Build) *reporterv1.ReportRequest {
	return &reporterv1.ReportRequest{Build: b}
}

func forgiven(b *schedulerv1.Build) *schedulerv1.Build {
	b.MayFail = true
	return b
}

func TestTextsThatPeopleRead(t *testing.T) {
	approvable := &schedulerv1.Build{State: schedulerv1.Build_STATE_BLOCKED, Sha: "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"}
	family := "👨\u200d👩\u200d👧\u200d👦"
	says := func(state schedulerv1.Build_State, reason schedulerv1.Build_Reason, message string) *schedulerv1.Build {
		return &schedulerv1.Build{State: state, Reason: reason, Message: message}
	}
	const none = schedulerv1.Build_REASON_UNSPECIFIED
	const errored, cancelled = schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_CANCELLED
	var out bytes.Buffer
	for _, b := range []*schedulerv1.Build{
		says(queued, none, ""),
		says(queued, schedulerv1.Build_REASON_ENGINE_UNAVAILABLE, "the engine does not answer: cannot connect to the Docker daemon"),
		says(schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_ENVIRONMENT_BUSY, "staging is deploying build 7k2"),
		approvable,
		says(schedulerv1.Build_STATE_STARTING, none, ""),
		says(running, none, ""),
		lasting(&schedulerv1.Build{State: good, StepCount: 5}, 72*time.Second),
		lasting(&schedulerv1.Build{State: good, StepCount: 1}, 280*time.Millisecond),
		lasting(&schedulerv1.Build{State: good, StepCount: 2}, 59970*time.Millisecond),
		lasting(&schedulerv1.Build{State: good, StepCount: 2}, 2*time.Hour+5*time.Minute+9*time.Second),
		failedAt("unit tests"),
		failedAt("go test \\\n\t-race ./...\x00"),
		failedAt("тесты 測試 " + family), //nolint:gosmopolitan // the point of it
		failedAt(strings.Repeat("a rather long name of a step ", 9)),
		failedAt(strings.Repeat(family, 40)),
		failedAt(strings.Repeat("測試", 90)), //nolint:gosmopolitan // as above
		failedAt(strings.Repeat("e\u0301", 90)),
		says(bad, schedulerv1.Build_REASON_OUT_OF_MEMORY, "the memory limit of 4 GiB was reached"),
		says(bad, schedulerv1.Build_REASON_OUT_OF_DISK, "used more disk than its limit of 10GiB"),
		says(errored, schedulerv1.Build_REASON_CONFIG_INVALID, `.forge.yml:7:3: unknown key "exceute", did you mean "execute"?`),
		says(errored, schedulerv1.Build_REASON_START_FAILED, "image golang:1.99 not found"),
		says(errored, schedulerv1.Build_REASON_NOT_RUNNABLE, "the container has no shell"),
		says(errored, schedulerv1.Build_REASON_LOST, "the container is gone"),
		says(errored, schedulerv1.Build_REASON_SOURCE_UNAVAILABLE, "the source could not be fetched"),
		says(errored, none, ""),
		says(errored, schedulerv1.Build_REASON_FORBIDDEN, strings.Repeat("GitHub refuses the file, ", 12)),
		says(cancelled, schedulerv1.Build_REASON_SUPERSEDED, "Superseded by 3f2a91c"),
		says(cancelled, schedulerv1.Build_REASON_PULL_REQUEST_CLOSED, "#12 was closed"),
		says(cancelled, schedulerv1.Build_REASON_NO_MATCHING_PATHS, "no matching paths"),
		says(cancelled, schedulerv1.Build_REASON_SKIP_ASKED, "the title says [skip ci]"),
		says(cancelled, schedulerv1.Build_REASON_ALREADY_CONTAINED, "already contained in build 7k2"),
		says(cancelled, none, ""),
		lasting(says(schedulerv1.Build_STATE_TIMED_OUT, none, ""), 30*time.Minute+200*time.Millisecond),
		lasting(&schedulerv1.Build{State: good, JobCount: 9}, 72*time.Second),
		lasting(&schedulerv1.Build{State: good, JobCount: 9, Message: "1 of 9 jobs did not pass, and may fail: beta"}, 72*time.Second),
		says(bad, schedulerv1.Build_REASON_JOBS, "2 of 9 jobs failed: test (1.26, postgres:17), lint"),
		says(schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_JOBS, "1 of 9 jobs timed out: lint"),
		says(good, schedulerv1.Build_REASON_CARRIED, "passed in build 7k2"),
		says(cancelled, schedulerv1.Build_REASON_NEED_FAILED, "not run: needs lint, which failed"),
		says(cancelled, schedulerv1.Build_REASON_CONDITION, "not run: the pull request has no label e2e"),
		says(cancelled, schedulerv1.Build_REASON_FAIL_FAST, "lint did not pass, and fail_fast is set"),
		forgiven(failedAt("unit tests")),
		forgiven(says(errored, schedulerv1.Build_REASON_LOST, "the container is gone")),
		forgiven(says(cancelled, schedulerv1.Build_REASON_CANCEL_ASKED, "asked for by ada")),
	} {
		shows := displayOf(reporterv1.Target_KIND_STATUS, reportOf(b))
		length := utf8.RuneCountInString(shows.description)
		if length > maxDescription || !utf8.ValidString(shows.description) {
			t.Errorf("%d characters: %q", length, shows.description)
		}
		fmt.Fprintf(&out, "%-8s %3d  %s\n", shows.state, length, shows.description)
	}
	kittest.Golden(t, "texts", out.Bytes())
}

func TestEveryStateOfABuildHasAView(t *testing.T) {
	for number, name := range schedulerv1.Build_State_name {
		if _, known := views[schedulerv1.Build_State(number)]; !known && number != 0 {
			t.Errorf("%s has no view", name)
		}
	}
}

func TestCutKeepsWordsAndDrawnCharacters(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"exactly ten", 11, "exactly ten"},
		{"one two three", 9, "one two…"},
		{"one two, three", 10, "one two…"},
		{"incomprehensibilities", 9, "incompre…"},
		{"ab👍🏽", 4, "ab👍🏽"},
		{"ab👍🏽c", 4, "ab…"},
		{"ab🇩🇪cd", 4, "ab…"},
		{"🇩🇪🇩🇪🇩🇪🇩🇪", 6, "🇩🇪🇩🇪…"},
	} {
		if got := cut(c.text, c.most); got != c.want {
			t.Errorf("cut(%q, %d) = %q, want %q", c.text, c.most, got, c.want)
		}
	}
}

// Of each reason for which builds wait there is something to read in the status.
func TestStatusSaysWhateverBuildsWaitFor(t *testing.T) {
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		text, waits := wording.Waits(reason)
		for state, before := range map[schedulerv1.Build_State]string{
			queued: "Queued: ", schedulerv1.Build_STATE_WAITING: "Waiting: ", schedulerv1.Build_STATE_STARTING: "Running: ", running: "Running: ",
		} {
			b := &schedulerv1.Build{State: state, Reason: reason}
			if got := displayOf(reporterv1.Target_KIND_STATUS, reportOf(b)).description; waits && got != before+text {
				t.Errorf("%v for %v: %q", state, reason, got)
			}
		}
	}
}
