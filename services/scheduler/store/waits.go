package store

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// WaitsFor is what a build, or a job, waits for; REASON_UNSPECIFIED where it is nothing.
// What nobody has to store is told from the rest: whatever is queued for no other reason
// waits for a place, and whatever runs without its source for that.
func WaitsFor(b *schedulerv1.Build) schedulerv1.Build_Reason {
	_, waits := wording.Waits(b.GetReason())
	switch state := b.GetState(); {
	case Ended(state):
	case state == schedulerv1.Build_STATE_RUNNING:
		if b.GetJobCount() == 0 && b.GetSourceTime() == nil && b.GetStartTime() == nil {
			return schedulerv1.Build_REASON_SOURCE
		}
	case waits:
		return b.GetReason()
	case state == schedulerv1.Build_STATE_QUEUED:
		return schedulerv1.Build_REASON_CAPACITY
	}
	return schedulerv1.Build_REASON_UNSPECIFIED
}

// maxWaits is how many waits of a build are kept.
const maxWaits = 100

// noteWait keeps for how long a build waits for what, as it is now.
func (b *Build) noteWait(now time.Time) {
	reason := WaitsFor(b.Build)
	if n := len(b.GetWaits()); n > 0 && b.Waits[n-1].GetEndTime() == nil {
		last := b.Waits[n-1]
		if last.GetReason() == reason {
			return
		}
		last.EndTime = timestamppb.New(now)
	}
	if reason != schedulerv1.Build_REASON_UNSPECIFIED && len(b.GetWaits()) < maxWaits {
		b.Waits = append(b.Waits, &schedulerv1.Wait{Reason: reason, StartTime: timestamppb.New(now)})
	}
}

// WaitsUntil are the waits without a gap between them of which the last has ended then:
// those of one way through the queue.
func (b *Build) WaitsUntil(then time.Time) []*schedulerv1.Wait {
	all, first := b.GetWaits(), len(b.GetWaits())
	for until := timestamppb.New(then).AsTime(); first > 0 && all[first-1].GetEndTime().AsTime().Equal(until); first-- {
		until = all[first-1].GetStartTime().AsTime()
	}
	return all[first:]
}
