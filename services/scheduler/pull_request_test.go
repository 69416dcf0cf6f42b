package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestSupersededBuildIsCancelled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		running := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(running, 1).Runner.Token)
		other := r.built(opened(2, "zzz"))
		newer := r.built(synchronize("aaa", "3f2a91c0000", noon.Add(time.Minute)))
		if told := u.recv().GetCancel().GetMessage(); told != "Superseded by 3f2a91c" {
			t.Errorf("the runner was told %q", told)
		}
		u.send(over(1, schedulerv1.Ended_CAUSE_CANCELLED))
		b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_CANCELLED)
		if b.GetReason() != schedulerv1.Build_REASON_SUPERSEDED || b.GetMessage() != "Superseded by 3f2a91c" || b.GetSupersededBy() != newer {
			t.Errorf("%v", b)
		}
		newest := r.built(synchronize("3f2a91c0000", "ddd", noon.Add(2*time.Minute)))
		if b := r.becomes(newer, schedulerv1.Build_STATE_CANCELLED); b.GetSupersededBy() != newest {
			t.Errorf("%v", b)
		}
		if b := r.build(other); b.GetState() == schedulerv1.Build_STATE_CANCELLED {
			t.Error("the build of another pull request was cancelled")
		}
		// Cancelled content may be built again: the branch went back to aaa.
		again := r.built(synchronize("ddd", "aaa", noon.Add(3*time.Minute)))
		if again == running {
			t.Error("a cancelled build came back")
		}
		r.becomes(newest, schedulerv1.Build_STATE_CANCELLED)
		kittest.Eventually(t, patience, func() error {
			if b := r.reporter.shows("aaa", "forge/test").GetBuild(); b.GetState() == schedulerv1.Build_STATE_CANCELLED {
				return fmt.Errorf("aaa still shows the build that was cancelled: %v", b)
			}
			return nil
		})
	})
}

// Another delivery of what was heard of before undoes no cancellation.
func TestCancelledBuildStaysCancelledWhoeverRepeatsItsEvent(t *testing.T) {
	for name, e := range map[string]*eventv1.Event{
		"opened":                 opened(1, "aaa"),
		"synchronize":            synchronize("aaa", "bbb", noon),
		"new base":               rebased("main", "production", noon),
		"merged into main":       mergedInto(1, "main", "m1"),
		"merged into production": mergedInto(1, "production", "m1"),
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			id := r.built(e)
			if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
				t.Fatal(err)
			}
			r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
			if d := r.again(e); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(d.GetBuildIds(), []string{id}) {
				t.Errorf("%v", d)
			}
			if len(r.all()) != 1 {
				t.Errorf("built %v", r.all())
			}
			if _, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id}); err != nil {
				t.Errorf("a person wants it after all: %v", err)
			}
		})
	}
}

func TestStaleEventSupersedesNothing(t *testing.T) {
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	for name, c := range map[string]struct {
		events []*eventv1.Event
		alive  string // the sha whose build must not be cancelled
	}{
		"older by time":               {[]*eventv1.Event{synchronize("b", "c", at(9)), synchronize("a", "b", at(5))}, "c"},
		"in order within one second":  {[]*eventv1.Event{opened(1, "a"), synchronize("a", "b", noon), synchronize("b", "c", noon)}, "c"},
		"reversed within one second":  {[]*eventv1.Event{synchronize("b", "c", noon), synchronize("a", "b", noon), opened(1, "a")}, "c"},
		"shuffled within one second":  {[]*eventv1.Event{synchronize("b", "c", noon), opened(1, "a"), synchronize("a", "b", noon)}, "c"},
		"shuffled otherwise":          {[]*eventv1.Event{opened(1, "a"), synchronize("b", "c", noon), synchronize("a", "b", noon)}, "c"},
		"there and back in a second":  {[]*eventv1.Event{opened(1, "a"), synchronize("a", "b", noon), synchronize("b", "a", noon)}, "a"},
		"an old close after a reopen": {[]*eventv1.Event{reopened("a", at(9)), closed("a", at(5))}, "a"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			for n, e := range c.events {
				e.DeliveryId = strings.Repeat("d", n+1)
				r.send(e)
			}
			list, err := r.builds.ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{Sha: c.alive})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.GetBuilds()) == 0 || list.GetBuilds()[0].GetState() == schedulerv1.Build_STATE_CANCELLED {
				t.Errorf("builds of the newest head: %v", list.GetBuilds())
			}
		})
	}
}

func reopened(sha string, at time.Time) *eventv1.Event {
	e := opened(1, sha)
	e.Action, e.DeliveryId, pull(e).UpdateTime = "reopened", "reopened-"+sha, timestamppb.New(at)
	return e
}

func closed(sha string, at time.Time) *eventv1.Event {
	e := opened(1, sha)
	e.Action, e.DeliveryId, pull(e).Open, pull(e).UpdateTime = "closed", "closed-"+sha, false, timestamppb.New(at)
	pull(e).CloseTime = timestamppb.New(at)
	return e
}

func TestLateEventOfAClosedPullRequestBuildsNothing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		if d := r.send(closed("aaa", noon.Add(time.Minute))); d.GetReason() != eventv1.Reason_REASON_CANCELLED || !slices.Equal(d.GetBuildIds(), []string{id}) {
			t.Errorf("%v", d)
		}
		if b := r.becomes(id, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_PULL_REQUEST_CLOSED {
			t.Errorf("%v", b)
		}
		if d := r.send(synchronize("aaa", "bbb", noon.Add(time.Minute))); d.GetReason() != eventv1.Reason_REASON_STALE {
			t.Errorf("%v", d)
		}
		if again := r.built(reopened("aaa", noon.Add(2*time.Minute))); again == id {
			t.Error("a cancelled build came back")
		}
	})
}

// Each row closes a pull request that was opened before, both changed a little.
func TestCloseEndsTheTestsOfItsPullRequestAlone(t *testing.T) {
	type change = func(*eventv1.Event)
	into := func(base string) change { return func(e *eventv1.Event) { pull(e).Base.Ref = base } }
	gone := func(e *eventv1.Event) { pull(e).Head.Repository = nil }
	const ended, nothing = "cancelled: closed without a merge", "ignored: closed without a merge, and nothing of it was queued or running"
	for name, c := range map[string]struct {
		both, close change // nil: as they are
		text        string
		again       string // in another delivery
		ends        bool
	}{
		"closed":               {text: ended, again: nothing, ends: true},
		"into production":      {both: into("production"), text: ended, again: nothing, ends: true},
		"into another by then": {close: into("feature/x"), text: ended, again: nothing, ends: true},
		"a draft":              {both: func(e *eventv1.Event) { pull(e).Draft = true }, text: ended, again: nothing, ends: true},
		"a fork":               {both: func(e *eventv1.Event) { fromFork("eve", e) }, text: ended, again: nothing, ends: true},
		"a fork, gone by then": {both: func(e *eventv1.Event) { fromFork("eve", e) }, close: gone, text: ended, again: nothing, ends: true},
		"a fork that is gone":  {both: gone, text: ended, again: nothing, ends: true},
		"by a bot": {close: func(e *eventv1.Event) {
			e.Sender = &eventv1.Account{Login: "stale[bot]", Type: eventv1.Account_TYPE_BOT}
		}, text: ended, again: nothing, ends: true},
		"of an older head, out of order": {close: func(e *eventv1.Event) { pull(e).Head.Sha = "older" }, text: ended, again: nothing, ends: true},
		"stale": {
			close: func(e *eventv1.Event) { pull(e).UpdateTime = timestamppb.New(noon.Add(-time.Second)) },
			text:  "ignored: something newer is known of #1", again: "ignored: something newer is known of #1",
		},
		"another pull request":    {close: func(e *eventv1.Event) { pull(e).Number = 2 }, text: nothing, again: nothing},
		"another repository's":    {close: func(e *eventv1.Event) { e.Repository.Id = 8 }, text: nothing, again: nothing},
		"only locked":             {close: func(e *eventv1.Event) { e.Action = "locked" }, text: "ignored: action locked", again: "ignored: action locked"},
		"only taken out of queue": {close: func(e *eventv1.Event) { e.Action = "dequeued" }, text: "ignored: action dequeued", again: "ignored: action dequeued"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			first, last := opened(1, "aaa"), closed("aaa", noon.Add(time.Minute))
			for _, change := range []struct {
				of *eventv1.Event
				do change
			}{{first, c.both}, {last, c.both}, {last, c.close}} {
				if change.do != nil {
					change.do(change.of)
				}
			}
			id, deploy := r.send(first).GetBuildIds()[0], r.built(mergedInto(3, "main", "m1"))
			if d := r.send(last); d.GetText() != c.text {
				t.Errorf("decided %q, want %q", d.GetText(), c.text)
			}
			if d := r.again(last); d.GetText() != c.again {
				t.Errorf("in another delivery: %q, want %q", d.GetText(), c.again)
			}
			if ends := r.build(id).GetState() == schedulerv1.Build_STATE_CANCELLED; ends != c.ends {
				t.Errorf("ended: %v, want %v", ends, c.ends)
			}
			if b := r.build(deploy); b.GetState() == schedulerv1.Build_STATE_CANCELLED {
				t.Errorf("a deploy ended: %v", b)
			}
		})
	}
}

// What was merged stays merged, whatever is known of the pull request.
func TestMergeIsDeployedOnceWhateverIsKnown(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) } // merged at 60
	late := mergedInto(1, "main", "m1")
	late.Action, late.DeliveryId, pull(late).UpdateTime = "labeled", "labeled", timestamppb.New(at(90))
	for name, c := range map[string]struct {
		before, after []*eventv1.Event
		base          string
	}{
		"in order":                           {before: []*eventv1.Event{opened(1, "aaa"), synchronize("aaa", "bbb", at(1))}, base: "main"},
		"in order, into production":          {before: []*eventv1.Event{opened(1, "aaa")}, base: "production"},
		"first of all":                       {after: []*eventv1.Event{opened(1, "aaa"), synchronize("aaa", "bbb", at(1))}, base: "main"},
		"after a later one":                  {before: []*eventv1.Event{synchronize("aaa", "bbb", at(70))}, base: "main"},
		"after a later one, into production": {before: []*eventv1.Event{synchronize("aaa", "bbb", at(70))}, base: "production"},
		"after a later label":                {before: []*eventv1.Event{opened(1, "aaa"), late}, base: "main"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			for _, e := range c.before {
				r.send(e)
			}
			merge := mergedInto(1, c.base, "m1")
			id := r.built(merge)
			if b := r.build(id); b.GetSha() != "m1" || b.GetAction() != trigger.DeployTo(map[string]string{"main": "staging", "production": "production"}[c.base]) {
				t.Errorf("%v", b)
			}
			for _, e := range c.after {
				if d := r.send(e); d.GetReason() != eventv1.Reason_REASON_STALE {
					t.Errorf("%s after the merge: %v", e.GetAction(), d)
				}
			}
			if d := r.again(merge); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(d.GetBuildIds(), []string{id}) {
				t.Errorf("in another delivery: %v", d)
			}
		})
	}
}

// rebased is the pull request of opened(1, "aaa") with another base than before.
func rebased(from, to string, at time.Time) *eventv1.Event {
	e := opened(1, "aaa")
	e.Action, e.DeliveryId = "edited", "edited-"+from+"-"+to
	e.GetPullRequest().PreviousBaseRef, pull(e).Base.Ref, pull(e).UpdateTime = from, to, timestamppb.New(at)
	return e
}

func TestNewBaseReplacesTheTest(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		test := r.built(opened(1, "aaa"))
		staging := r.built(rebased("main", "production", noon.Add(time.Minute)))
		if b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_CANCELLED); b.GetId() != test || b.GetMessage() != "Superseded: base branch is production" {
			t.Errorf("%v", b)
		}
		if b := r.build(staging); b.GetAction() != schedulerv1.Build_ACTION_STAGING || b.GetBaseRef() != "production" {
			t.Errorf("%v", b)
		}
		again := r.built(rebased("production", "main", noon.Add(2*time.Minute)))
		r.shown("aaa", "forge/staging", schedulerv1.Build_STATE_CANCELLED)
		if b := r.becomes(again, schedulerv1.Build_STATE_STARTING); b.GetAction() != schedulerv1.Build_ACTION_TEST || again == test {
			t.Errorf("%v", b)
		}
	})
}

func TestBaseThatNothingIsBuiltForEndsTheTests(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(first, 1).Runner.Token)
		other, deploy := r.built(opened(2, "aaa")), r.built(mergedInto(3, "main", "m1"))
		away := rebased("main", "feature/x", noon.Add(time.Minute))
		d := r.send(away)
		if d.GetReason() != eventv1.Reason_REASON_CANCELLED || d.GetText() != "cancelled: base branch is feature/x" || !slices.Equal(d.GetBuildIds(), []string{first}) {
			t.Errorf("%v", d)
		}
		if told := u.recv().GetCancel().GetMessage(); told != "base branch is feature/x" {
			t.Errorf("the runner was told %q", told)
		}
		u.send(over(1, schedulerv1.Ended_CAUSE_CANCELLED))
		if b := r.becomes(first, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_BASE_CHANGED {
			t.Errorf("%v", b)
		}
		for _, id := range []string{other, deploy} {
			if b := r.build(id); b.GetState() == schedulerv1.Build_STATE_CANCELLED {
				t.Errorf("cancelled: %v", b)
			}
		}
		if d := r.again(away); d.GetText() != "ignored: base branch is feature/x" {
			t.Errorf("told again: %v", d)
		}
		// What GitHub tells of the time before comes too late.
		if d := r.send(synchronize("aaa", "bbb", noon.Add(time.Second))); d.GetReason() != eventv1.Reason_REASON_STALE {
			t.Errorf("%v", d)
		}
		if again := r.built(rebased("feature/x", "main", noon.Add(2*time.Minute))); again == first {
			t.Error("a cancelled build came back")
		}
		// And so does that of a base it has left again.
		late := rebased("main", "feature/y", noon.Add(time.Minute+time.Second))
		if d := r.send(late); len(d.GetBuildIds()) != 0 {
			t.Errorf("%v", d)
		}
	})
}
