package attempt

import (
	"cmp"
	"fmt"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// sight is how the engine sees the container of an attempt that is to run.
type sight int

const (
	runs sight = iota
	unreachable
	gone
	ended
	ranOutOfMemory
	ranOutOfDisk
	withdrawn
)

func sightOf(c engine.Container, there bool) sight {
	switch {
	case !there:
		return gone
	case c.Unreachable:
		return unreachable
	case c.Running:
		return runs
	}
	return map[engine.Ending]sight{
		engine.EndingUnknown: ended, engine.OutOfMemory: ranOutOfMemory, engine.OutOfDisk: ranOutOfDisk, engine.Withdrawn: withdrawn,
	}[c.Ending]
}

// fate is what becomes of an attempt whose runner is silent for longer than it may be.
type fate struct {
	ending string // for operators
	// state and reason end its build; without them the attempt is lost.
	state  schedulerv1.Build_State
	reason schedulerv1.Build_Reason
	// times is how often a test is run again that was lost this way.
	times   int32
	message func(s *Service, b *store.Build) string
}

// fateOf is nil for an attempt that is left alone: its container runs, or its runner
// was heard not long ago, whose word counts for more than the engine's.
func (s sweep) fateOf(a *store.Attempt, c engine.Container, there bool) *fate {
	const failed = schedulerv1.Build_STATE_FAILED
	saw := sightOf(c, there)
	heard, grace := a.Contact, s.Runners.Grace
	if saw == unreachable {
		grace = s.Runners.MachineGrace
		if s.serving.After(heard) { // while nobody listened, nobody could be heard
			heard = s.serving
		}
	}
	if saw == runs || s.now().Sub(heard) <= grace {
		return nil
	}
	says := func(message string) func(*Service, *store.Build) string {
		if c.Reason != "" && saw != unreachable {
			message += ": " + c.Reason
		}
		return func(*Service, *store.Build) string { return message }
	}
	over := "the container ended before its commands did"
	if c.ExitCode >= 0 {
		over = fmt.Sprintf("the container ended with exit code %d before its commands did", c.ExitCode)
	}
	return map[sight]*fate{
		unreachable:    {ending: "unreachable", times: 1, message: says(machineSilent(cmp.Or(c.Machine, a.Machine), grace))},
		gone:           {ending: "gone", times: 1, message: says("the container is gone")},
		ended:          {ending: "ended", times: 1, message: says(over)},
		withdrawn:      {ending: "withdrawn", times: 2, message: says(over)},
		ranOutOfMemory: {ending: "out_of_memory", state: failed, reason: schedulerv1.Build_REASON_OUT_OF_MEMORY, message: (*Service).outOfMemory},
		ranOutOfDisk:   {ending: "out_of_disk", state: failed, reason: schedulerv1.Build_REASON_OUT_OF_DISK, message: (*Service).outOfDisk},
	}[saw]
}

func machineSilent(machine string, grace time.Duration) string {
	if machine == "" {
		return fmt.Sprintf("its machine has not been heard of for %v", grace)
	}
	return fmt.Sprintf("machine %s has not been heard of for %v", machine, grace)
}
