package store

import (
	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// ConfigJob is what the build runs.
func (b *Build) ConfigJob() *configv1.Pipeline { return JobOf(b.GetAction(), b.Config) }

// JobOf is what an action runs of a file; nil where the file has nothing for it.
func JobOf(action schedulerv1.Build_Action, config *configv1.BuildConfig) *configv1.Pipeline {
	if of := trigger.ActionOf(action).Job; of != nil {
		return of(config)
	}
	return nil
}

// PlannedSteps are the steps of a build as they stand before it runs.
func (b *Build) PlannedSteps() []*schedulerv1.Step {
	var steps []*schedulerv1.Step
	for n, command := range b.ConfigJob().GetCommands() {
		steps = append(steps, &schedulerv1.Step{
			Number: int32(n) + 1, // config bounds it by 500
			Name:   command.GetName(), Run: command.GetRun(), State: schedulerv1.Step_STATE_PENDING,
		})
	}
	return steps
}
