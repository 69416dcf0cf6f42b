package scheduler

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func pressedAt(sha, id, identifier string) *eventv1.Event {
	action := "rerequested"
	if identifier != "" {
		action = "requested_action"
	}
	button := eventv1.Button(eventv1.Button_value["BUTTON_"+strings.ToUpper(identifier)])
	return happened("check_run", action, &eventv1.CheckRunEvent{HeadSha: sha, ExternalId: id, RequestedAction: identifier, Button: button})
}

func TestButtonsDoWhatTheySay(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(opened(1, "aaa"))
		if d := r.send(pressedAt("aaa", first, "rerun")); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
			t.Errorf("re-run of what runs: %v", d)
		}
		if d := r.send(pressedAt("aaa", first, "cancel")); d.GetReason() != eventv1.Reason_REASON_CANCELLED || !slices.Equal(d.GetBuildIds(), []string{first}) {
			t.Errorf("%v", d)
		}
		if d := r.again(pressedAt("aaa", first, "cancel")); d.GetReason() != eventv1.Reason_REASON_NOTHING_TO_RUN {
			t.Errorf("cancel of what has ended: %v", d)
		}
		second := r.built(pressedAt("aaa", first, ""))
		r.pass(second)
		third := r.built(pressedAt("aaa", second, ""))
		if b := r.build(third); b.GetRetryOf() != second || b.GetTitle() != "Add a till" || b.GetBaseRef() != "main" || b.GetActor() != "ada" {
			t.Errorf("%v", b)
		}
		blocked := r.send(fromFork("eve", opened(2, "fff"))).GetBuildIds()[0]
		if d := r.send(pressedAt("fff", blocked, "approve")); d.GetReason() != eventv1.Reason_REASON_APPROVED {
			t.Errorf("%v", d)
		}
		r.pass(third)
		r.pass(blocked)
	})
}

// Only the body of a delivery is signed: whoever has seen one can send it again
// as another.
func TestPressRunsChecksAgainOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		all := func(at time.Time) *eventv1.Event {
			return happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{CheckSuiteId: 5, HeadSha: "aaa", UpdateTime: timestamppb.New(at)})
		}
		r.pass(r.built(opened(1, "aaa")))
		var replays []*eventv1.Event
		for n, press := range []func(newest string) *eventv1.Event{
			func(newest string) *eventv1.Event { return pressedAt("aaa", newest, "") },
			func(newest string) *eventv1.Event { return pressedAt("aaa", newest, "rerun") },
			func(string) *eventv1.Event { return all(noon) },
			func(newest string) *eventv1.Event { return pressedAt("aaa", newest, "") },
			func(string) *eventv1.Event { return all(noon.Add(time.Second)) },
		} {
			before := r.all()[0].GetId()
			e := press(before)
			id := r.built(e)
			if n%2 == 0 {
				r.pass(id)
			} else if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
				t.Fatal(err)
			}
			want := "ignored: all checks of aaa were run again already"
			if e.GetCheckRun() != nil {
				want = "ignored: build " + before + " was run again already, as " + id
			}
			if d := r.again(e); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || d.GetText() != want || !slices.Equal(d.GetBuildIds(), []string{id}) {
				t.Errorf("in another delivery: %v, want %s", d, want)
			}
			replays = append(replays, e)
		}
		for _, e := range replays {
			if d := r.again(e); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
				t.Errorf("much later: %v", d)
			}
		}
		if len(r.all()) != 6 {
			t.Errorf("%d builds", len(r.all()))
		}
	})
}

func TestPressesHeardOfAtOnceRunChecksAgainOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(opened(1, "aaa"))
		r.pass(first)
		var deliveries sync.WaitGroup
		for n := range 12 {
			deliveries.Go(func() {
				e := pressedAt("aaa", first, "")
				if n%2 == 1 {
					e = happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{CheckSuiteId: 5, HeadSha: "aaa", UpdateTime: timestamppb.New(noon)})
				}
				e.DeliveryId += strings.Repeat("x", n)
				if _, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e}); err != nil {
					t.Error(err)
				}
			})
		}
		deliveries.Wait()
		if len(r.all()) != 2 {
			t.Errorf("built %v", r.all())
		}
	})
}

func TestRerunOfAnOldCommitSupersedesNothing(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	old := r.built(opened(1, "aaa"))
	newer := r.built(synchronize("aaa", "bbb", noon.Add(1)))
	again := r.built(pressedAt("aaa", old, ""))
	for _, id := range []string{newer, again} {
		if b := r.build(id); store.Ended(b.GetState()) {
			t.Errorf("%v", b)
		}
	}
}

func TestAllChecksOfACommitRunAgainButDeploys(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first, second := r.built(opened(1, "aaa")), r.built(opened(2, "aaa"))
		deploy := r.built(mergedInto(3, "main", "aaa"))
		for _, id := range []string{first, second, deploy} {
			r.pass(id)
		}
		d := r.send(happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "aaa"}))
		if d.GetReason() != eventv1.Reason_REASON_BUILT || len(d.GetBuildIds()) != 2 {
			t.Fatalf("%v", d)
		}
		for n, id := range d.GetBuildIds() {
			if b := r.build(id); b.GetRetryOf() != []string{first, second}[n] {
				t.Errorf("%v", b)
			}
		}
		// Now both are under way.
		if d := r.again(happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "aaa"})); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || len(d.GetBuildIds()) != 2 {
			t.Errorf("%v", d)
		}
		if len(r.all()) != 5 {
			t.Errorf("%d builds", len(r.all()))
		}
	})
}

func TestButtonsThatDoNothingSayWhy(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	test, deploy := r.built(opened(1, "aaa")), r.built(mergedInto(2, "main", "m1"))
	orphan := opened(3, "fff")
	pull(orphan).Head.Repository = nil // its fork was deleted
	blocked := r.send(orphan).GetBuildIds()[0]
	bot := pressedAt("aaa", test, "cancel")
	bot.Sender.Type = eventv1.Account_TYPE_BOT
	for name, c := range map[string]struct {
		event  *eventv1.Event
		reason eventv1.Reason
		text   string
	}{
		"re-run of a deploy":    {pressedAt("m1", deploy, ""), eventv1.Reason_REASON_DEPLOY_IGNORED, "ignored: deploys are steered by administrators, not by buttons"},
		"cancel of a deploy":    {pressedAt("m1", deploy, "cancel"), eventv1.Reason_REASON_DEPLOY_IGNORED, "ignored: deploys are steered by administrators, not by buttons"},
		"all checks of a merge": {happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "m1"}), eventv1.Reason_REASON_DEPLOY_IGNORED, "ignored: deploys are steered by administrators, not by buttons"},
		"nothing built":         {happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "fffffffff"}), eventv1.Reason_REASON_NOTHING_TO_RUN, "ignored: nothing was built of fffffff"},
		"unknown build":         {pressedAt("aaa", "nope", ""), eventv1.Reason_REASON_GONE, "ignored: the check run is of no build that is known here"},
		"build of another":      {pressedAt("bbb", test, ""), eventv1.Reason_REASON_GONE, "ignored: the check run is of no build that is known here"},
		"unknown button":        {pressedAt("aaa", test, "fix"), eventv1.Reason_REASON_ACTION_IGNORED, `ignored: there is no button "fix"`},
		"approve no fork":       {pressedAt("aaa", test, "approve"), eventv1.Reason_REASON_NOT_ADDRESSED, "ignored: build " + test + " is not from a fork and needs no approval"},
		"re-run, fork gone":     {pressedAt("fff", blocked, ""), eventv1.Reason_REASON_DUPLICATE, "ignored: fff waits for approval, as " + blocked},
		"all checks, fork gone": {happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "fff"}), eventv1.Reason_REASON_DUPLICATE, "ignored: fff waits for approval, as " + blocked},
		"all checks, running":   {happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "aaa"}), eventv1.Reason_REASON_DUPLICATE, "ignored: aaa is being built already, as " + test},
		"pressed by a bot":      {bot, eventv1.Reason_REASON_NOT_ALLOWED, "ignored: ada has no write access to Acme/shop"},
		"pressed by a reader":   {sentBy("eve", pressedAt("aaa", test, "rerun")), eventv1.Reason_REASON_NOT_ALLOWED, "ignored: eve has no write access to Acme/shop"},
		"check run made":        {happened("check_run", "created", &eventv1.CheckRunEvent{HeadSha: "aaa", ExternalId: test}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action created"},
		"suite requested":       {happened("check_suite", "requested", &eventv1.CheckSuiteEvent{HeadSha: "aaa"}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action requested"},
		"another repository's": {func() *eventv1.Event {
			e := pressedAt("aaa", test, "cancel")
			e.Repository.Id = 8
			return e
		}(), eventv1.Reason_REASON_GONE, "ignored: the check run is of no build that is known here"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c.event.DeliveryId += name
			if d := r.send(c.event); d.GetReason() != c.reason || d.GetText() != c.text {
				t.Errorf("%v %q, want %v %q", d.GetReason(), d.GetText(), c.reason, c.text)
			}
		})
	}
	got := r.all()
	if len(got) != 3 || slices.ContainsFunc(got, func(b *schedulerv1.Build) bool { return b.GetState() == schedulerv1.Build_STATE_CANCELLED }) {
		t.Errorf("%v", got)
	}
}
