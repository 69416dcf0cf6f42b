package store

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
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

// ForPlaces says of what is queued, jobs among it, that it waits for a place, while none of
// so many is free: what else it waits for is stored.
func ForPlaces(ctx context.Context, s *Store, capacity int, builds ...*schedulerv1.Build) error {
	queued := func(state schedulerv1.Build_State, reason schedulerv1.Build_Reason) bool {
		return state == schedulerv1.Build_STATE_QUEUED && reason == schedulerv1.Build_REASON_UNSPECIFIED
	}
	var reasons []*schedulerv1.Build_Reason
	for _, b := range builds {
		if queued(b.GetState(), b.GetReason()) {
			reasons = append(reasons, &b.Reason)
		}
		for _, job := range b.GetJobs() {
			if queued(job.GetState(), job.GetReason()) {
				reasons = append(reasons, &job.Reason)
			}
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	var taken int
	if err := s.DB.Read().QueryRowContext(ctx, `SELECT count(*) FROM attempts WHERE NOT ended`).Scan(&taken); err != nil {
		return sqldb.Kind(err)
	}
	for _, reason := range reasons {
		if taken >= capacity {
			*reason = schedulerv1.Build_REASON_CAPACITY
		}
	}
	return nil
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
