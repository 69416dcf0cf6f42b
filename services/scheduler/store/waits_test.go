package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

func TestWhatBuildsWaitFor(t *testing.T) {
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		_, waits := wording.Waits(reason)
		for state := schedulerv1.Build_STATE_QUEUED; state <= schedulerv1.Build_STATE_TIMED_OUT; state++ {
			want := schedulerv1.Build_REASON_UNSPECIFIED
			switch {
			case state == schedulerv1.Build_STATE_RUNNING:
				want = schedulerv1.Build_REASON_SOURCE
			case Ended(state):
			case waits:
				want = reason
			case state == schedulerv1.Build_STATE_QUEUED: // such as one that was lost, and is built again
				want = schedulerv1.Build_REASON_CAPACITY
			}
			if got := WaitsFor(&schedulerv1.Build{State: state, Reason: reason}); got != want {
				t.Errorf("%v for %v waits for %v, want %v", state, reason, got, want)
			}
		}
	}
	for what, b := range map[string]*schedulerv1.Build{
		"has its source": {SourceTime: timestamppb.Now()}, "has begun": {StartTime: timestamppb.Now()}, "has jobs": {JobCount: 2},
	} {
		b.State = schedulerv1.Build_STATE_RUNNING
		if got := WaitsFor(b); got != schedulerv1.Build_REASON_UNSPECIFIED {
			t.Errorf("what runs and %s waits for %v", what, got)
		}
	}
}

func TestWaitsAreKeptInOrder(t *testing.T) {
	const queued, starting = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_STARTING
	b := &Build{Build: &schedulerv1.Build{}}
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	for _, c := range []struct {
		second int
		state  schedulerv1.Build_State
		reason schedulerv1.Build_Reason
	}{
		{0, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_CONCURRENCY},
		{2, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_CONCURRENCY},
		{5, queued, schedulerv1.Build_REASON_UNSPECIFIED},
		{6, starting, schedulerv1.Build_REASON_UNSPECIFIED},
		{8, queued, schedulerv1.Build_REASON_RETRY},
		{9, starting, schedulerv1.Build_REASON_UNSPECIFIED},
	} {
		b.State, b.Reason = c.state, c.reason
		b.noteWait(at(c.second))
	}
	read := func(all []*schedulerv1.Wait) (said []string) {
		for _, one := range all {
			said = append(said, fmt.Sprintf("%s %v-%v", wording.Value(one.GetReason()), one.GetStartTime().AsTime().Sub(begin), one.GetEndTime().AsTime().Sub(begin)))
		}
		return said
	}
	for until, want := range map[time.Time][]string{
		at(6):  {"concurrency 0s-5s", "capacity 5s-6s"},
		at(9):  {"retry 8s-9s"},
		at(10): nil,
	} {
		all := &Build{Build: &schedulerv1.Build{}}
		for _, one := range b.GetWaits() {
			if !one.GetEndTime().AsTime().After(until) {
				all.Waits = append(all.Waits, one)
			}
		}
		if got := read(all.WaitsUntil(until)); !slices.Equal(got, want) {
			t.Errorf("until %v: %q, want %q", until.Sub(begin), got, want)
		}
	}
	for n := range 2 * maxWaits {
		b.State = schedulerv1.Build_State(1 + 3*(n%2)) // queued, starting
		b.noteWait(at(20 + n))
	}
	if len(b.GetWaits()) != maxWaits {
		t.Errorf("%d waits are kept, want %d", len(b.GetWaits()), maxWaits)
	}
}
