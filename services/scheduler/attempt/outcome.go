package attempt

import (
	"cmp"
	"fmt"
	"slices"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// mostSaid is how much of why a step failed is told on, in characters: a runner says it,
// which may be anybody's.
const mostSaid = 300

// outcome is how a build has ended.
type outcome struct {
	state   schedulerv1.Build_State
	reason  schedulerv1.Build_Reason
	message string
}

// outcomeOf decides how a build has ended from what its runner told. Passed is
// what ran to its end and whose every step is known to have ended with 0.
func outcomeOf(end *schedulerv1.Ended, steps []*schedulerv1.Step, asked store.Cancel) outcome {
	cancelled := outcome{schedulerv1.Build_STATE_CANCELLED, asked.Reason, asked.Message}
	table := map[schedulerv1.Ended_Cause]outcome{
		schedulerv1.Ended_CAUSE_CANCELLED:         cancelled,
		schedulerv1.Ended_CAUSE_TIMED_OUT:         {schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_UNSPECIFIED, end.GetMessage()},
		schedulerv1.Ended_CAUSE_NO_SOURCE:         {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SOURCE_UNAVAILABLE, cmp.Or(end.GetMessage(), "the source could not be fetched")},
		schedulerv1.Ended_CAUSE_SOURCE_REFUSED:    {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SOURCE_REFUSED, cmp.Or(end.GetMessage(), "the source holds what must not be unpacked")},
		schedulerv1.Ended_CAUSE_NOT_RUNNABLE:      {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_NOT_RUNNABLE, cmp.Or(end.GetMessage(), "the container cannot run a command")},
		schedulerv1.Ended_CAUSE_STOPPED:           {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST, cmp.Or(end.GetMessage(), "the container was told to stop from outside")},
		schedulerv1.Ended_CAUSE_ARTIFACT:          {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_ARTIFACT, cmp.Or(end.GetMessage(), "an artifact could not be kept")},
		schedulerv1.Ended_CAUSE_IMAGE:             {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_IMAGE_BUILD, cmp.Or(end.GetMessage(), "an image could not be built")},
		schedulerv1.Ended_CAUSE_SERVICE_NOT_READY: {schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, cmp.Or(end.GetMessage(), "a service was not ready in time")},
	}
	if o, ok := table[end.GetCause()]; ok {
		return o
	}
	if end.GetCause() == schedulerv1.Ended_CAUSE_DONE {
		for _, step := range steps {
			if step.GetState() != schedulerv1.Step_STATE_FAILED {
				continue
			}
			failed := outcome{
				schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_STEP_FAILED,
				fmt.Sprintf("step %d %q ended with exit code %d", step.GetNumber(), step.GetName(), step.GetExitCode()),
			}
			if step.GetOutOfMemory() {
				failed.reason = schedulerv1.Build_REASON_OUT_OF_MEMORY
			} else if said := egress.OneLine(end.GetMessage(), mostSaid); said != "" {
				failed.message = fmt.Sprintf("step %d %q failed: %s", step.GetNumber(), step.GetName(), said)
			}
			return failed
		}
		passed := func(step *schedulerv1.Step) bool {
			return step.GetState() == schedulerv1.Step_STATE_PASSED ||
				step.GetWhen() == configv1.Command_WHEN_FAILURE && step.GetState() == schedulerv1.Step_STATE_PENDING
		}
		if len(steps) > 0 && !slices.ContainsFunc(steps, func(step *schedulerv1.Step) bool { return !passed(step) }) {
			return outcome{state: schedulerv1.Build_STATE_PASSED}
		}
	}
	return outcome{
		schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST,
		cmp.Or(end.GetMessage(), "the runner ended, and not every step is known to have passed"),
	}
}
