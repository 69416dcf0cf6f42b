package attempt

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// What has come of each step, and of the whole: nothing uncertain is green.
func TestVerdictOverSteps(t *testing.T) {
	whens := map[string]configv1.Command_When{
		"": configv1.Command_WHEN_UNSPECIFIED, "success": configv1.Command_WHEN_SUCCESS,
		"failure": configv1.Command_WHEN_FAILURE, "always": configv1.Command_WHEN_ALWAYS,
	}
	states := map[string]schedulerv1.Step_State{
		"pending": schedulerv1.Step_STATE_PENDING, "running": schedulerv1.Step_STATE_RUNNING, "passed": schedulerv1.Step_STATE_PASSED,
		"failed": schedulerv1.Step_STATE_FAILED, "stopped": schedulerv1.Step_STATE_STOPPED,
	}
	const done, cancelled, late = schedulerv1.Ended_CAUSE_DONE, schedulerv1.Ended_CAUSE_CANCELLED, schedulerv1.Ended_CAUSE_TIMED_OUT
	for _, c := range []struct {
		cause schedulerv1.Ended_Cause
		steps string
		want  string
	}{
		{done, "passed, passed", "passed"},
		{done, "passed, failure pending, always passed", "passed"},
		{done, "passed, failure passed", "passed"},
		{done, "passed, always pending", "errored"},
		{done, "passed, success pending", "errored"},
		{done, "passed, running", "errored"},
		{done, "passed, stopped", "errored"},
		{done, "failure pending", "passed"}, // nothing was to be done, and that is done
		{done, "", "errored"},
		{done, "failed, pending", "failed: step 1"},
		{done, "failed, failure passed, always passed", "failed: step 1"},
		{done, "passed, failed, failure failed", "failed: step 2"},
		{done, "passed, always failed", "failed: step 2"},
		{cancelled, "stopped, always passed", "cancelled"},
		{cancelled, "stopped, always failed", "cancelled"},
		{cancelled, "passed, always passed", "cancelled"},
		{late, "stopped, failure passed, always failed", "timed out"},
	} {
		var steps []*schedulerv1.Step
		for n, said := range strings.Split(c.steps, ", ") {
			words := strings.Fields(said)
			if len(words) == 0 {
				continue
			}
			step := &schedulerv1.Step{Number: int32(n + 1), State: states[words[len(words)-1]]}
			if len(words) > 1 {
				step.When = whens[words[0]]
			}
			if step.GetState() == schedulerv1.Step_STATE_FAILED {
				step.ExitCode = new(int32(1))
			}
			steps = append(steps, step)
		}
		o := outcomeOf(&schedulerv1.Ended{Cause: c.cause}, steps, store.Cancel{})
		got := wording.Value(o.state)
		if o.state == schedulerv1.Build_STATE_FAILED {
			got += ": " + o.message[:len("step 1")]
		}
		kittest.Want(t, got, c.want, "%v, %s", c.cause, c.steps)
	}
}

// What a runner says of a step that failed is told on one line, and makes nothing of it
// that it is not.
func TestWhyAStepFailedIsToldWhereItIsKnown(t *testing.T) {
	const done = schedulerv1.Ended_CAUSE_DONE
	failed := &schedulerv1.Step{Number: 2, Name: "image", State: schedulerv1.Step_STATE_FAILED, ExitCode: new(int32(1))}
	for says, want := range map[string]string{
		"": `step 2 "image" ended with exit code 1`,
		"the image is not built: there is no Dockerfile at ci/Missing": `step 2 "image" failed: the image is not built: there is no Dockerfile at ci/Missing`,
		"one\n\ttwo \x1b[2J":     `step 2 "image" failed: one two [2J`,
		strings.Repeat("é", 400): `step 2 "image" failed: ` + strings.Repeat("é", mostSaid-1) + "…",
	} {
		o := outcomeOf(&schedulerv1.Ended{Cause: done, Message: says}, []*schedulerv1.Step{{Number: 1, State: schedulerv1.Step_STATE_PASSED}, failed}, store.Cancel{})
		kittest.Want(t, o.message, want, "%q", says)
		kittest.Want(t, o.reason, schedulerv1.Build_REASON_STEP_FAILED, "%q", says)
	}
	passed := []*schedulerv1.Step{{Number: 1, State: schedulerv1.Step_STATE_PASSED}}
	kittest.Want(t, outcomeOf(&schedulerv1.Ended{Cause: done, Message: "it lies"}, passed, store.Cancel{}).message, "", "what passed")
}
