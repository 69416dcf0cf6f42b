package store

import (
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// States grow towards the end: this one and those above it are final.
const firstEnded = schedulerv1.Build_STATE_PASSED

// Ended reports whether a state is final.
func Ended(state schedulerv1.Build_State) bool { return state >= firstEnded }
