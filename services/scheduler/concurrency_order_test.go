package scheduler

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// pushedAt is a push to a ref in a second, after another commit.
func pushedAt(ref, before, sha string, second int) *eventv1.Event {
	e := pushedTo(ref, sha)
	e.GetPush().Before, e.GetPush().PushTime = before, timestamppb.New(time.Date(2026, 11, 2, 9, 0, second, 0, time.UTC))
	return e
}

// pushesAt sends a push to main, and returns its build.
func (r queueing) pushesAt(sha string, second int, cancel bool) string {
	r.t.Helper()
	r.names(sha, "tests", cancel)
	return r.built(pushedAt("refs/heads/main", "0000000", sha, second))
}

// late sends a push that comes late, and checks that it takes no other's place.
func (r queueing) late(e *eventv1.Event, context, newer string) {
	r.t.Helper()
	r.names(e.GetPush().GetAfter(), "tests", true)
	d := r.send(e)
	if d.GetReason() != eventv1.Reason_REASON_STALE || len(d.GetBuildIds()) != 1 {
		r.t.Fatalf("%v, want it stale", d)
	}
	b := r.build(d.GetBuildIds()[0])
	if want := "build " + newer + " of concurrency group tests took its place"; b.GetState() != schedulerv1.Build_STATE_CANCELLED ||
		b.GetReason() != schedulerv1.Build_REASON_CONCURRENCY || b.GetMessage() != want || b.GetSupersededBy() != newer || b.GetConcurrencyGroup() != "tests" {
		r.t.Errorf("%v, want %q", b, want)
	}
	r.shown(e.GetPush().GetAfter(), context, schedulerv1.Build_STATE_CANCELLED)
}

// Webhooks come in any order. The newest is the newest push, not the latest webhook.
func TestAPushThatComesLateCancelsNoneThatIsNewer(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		newest := r.pushesAt("ccc", 30, true)
		r.running(newest)
		r.late(pushedAt("refs/heads/main", "0000000", "bbb", 20), "forge/push", newest)
		kittest.Want(t, r.build(newest).GetState() == schedulerv1.Build_STATE_CANCELLED, false, "the newest is cancelled")
		r.pass(newest)
		r.late(pushedAt("refs/heads/main", "0000000", "aaa", 10), "forge/push", newest) // not even when it has passed

		later := r.pushesAt("ddd", 40, true)
		r.pass(later)
		answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: newest})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(answer.GetBuild().GetId()) // somebody has asked for it
	})
}

// A tag that was moved twice is as good as a branch.
func TestATagThatComesLateCancelsNoneThatIsNewer(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		r.names("ccc", "tests", true)
		newest := r.built(pushedAt("refs/tags/v1", "0000000", "ccc", 30))
		r.running(newest)
		r.late(pushedAt("refs/tags/v1", "0000000", "bbb", 20), "forge/tag", newest)
		r.pass(newest)
		r.late(pushedAt("refs/tags/v1", "0000000", "aaa", 10), "forge/tag", newest)
	})
}

// Of pushes within one second the commit that was there before tells.
func TestPushesWithinASecondFollowEachOther(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		r.names("bbb", "tests", true)
		newest := r.built(pushedAt("refs/heads/main", "aaa", "bbb", 10))
		r.running(newest)
		r.late(pushedAt("refs/heads/main", "0000000", "aaa", 10), "forge/push", newest)
		r.pass(newest)
	})
}

// Where none cancels, one that comes late takes its place before the newer.
func TestAPushThatComesLateGetsInLineBeforeTheNewer(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		first := r.pushesAt("aaa", 10, false)
		r.running(first)
		fourth := r.pushesAt("ddd", 40, false)
		r.waitsFor(fourth, first, "tests")
		r.names("eee", "tests", false)
		other := r.built(pushedAt("refs/tags/v1", "0000000", "eee", 20)) // which has no part in that
		r.waitsFor(other, fourth, "tests")
		second := r.pushesAt("bbb", 20, false)
		r.waitsFor(second, first, "tests")
		r.waitsFor(fourth, second, "tests")
		r.waitsFor(other, fourth, "tests")
		r.stop()
		r.start()
		for _, id := range []string{first, second, fourth, other} {
			r.pass(id)
		}
	})
}
