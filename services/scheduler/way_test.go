package scheduler

import (
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func unpacked(sequence int64) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_SourceUnpacked{SourceUnpacked: &schedulerv1.SourceUnpacked{Entries: 3}}
	return r
}

// A build tells how it got to its first command: since when the engine starts it, its
// container runs, and its source is there. An attempt that takes the place of another
// tells of itself alone.
func TestBuildTellsItsWayToTheFirstCommand(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		first := r.spec(id, 1)
		if b := r.build(id); b.GetPlaceTime() == nil || b.GetContainerTime() != nil || b.GetSourceTime() != nil {
			t.Errorf("before its container: %v, %v, %v", b.GetPlaceTime(), b.GetContainerTime(), b.GetSourceTime())
		}
		u := r.attach(first.Runner.Token)
		u.send(unpacked(1))
		u.acked(1)
		b := r.build(id)
		if b.GetContainerTime() == nil || !b.GetSourceTime().AsTime().Equal(noon.Add(time.Second)) || b.GetStartTime() != nil {
			t.Errorf("with its source: %v, %v, %v", b.GetContainerTime(), b.GetSourceTime(), b.GetStartTime())
		}
		u.send(began(2, 1))
		u.acked(2)
		if b = r.build(id); !b.GetStartTime().AsTime().Equal(noon.Add(2 * time.Second)) {
			t.Errorf("the first command began at %v", b.GetStartTime())
		}
		u.send(over(3, schedulerv1.Ended_CAUSE_STOPPED)) // the host restarts
		second := r.spec(id, 2)
		if b = r.build(id); b.GetPlaceTime() == nil || b.GetContainerTime() != nil || b.GetSourceTime() != nil {
			t.Errorf("the second attempt: %v, %v, %v", b.GetPlaceTime(), b.GetContainerTime(), b.GetSourceTime())
		}
		r.attach(second.Runner.Token)
	})
}
