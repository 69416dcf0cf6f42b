package scheduler

import (
	"slices"
	"strings"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func group(action, base, sha string) *eventv1.Event {
	return happened("merge_group", action, &eventv1.MergeGroupEvent{
		HeadSha: sha, HeadRef: "refs/heads/gh-readonly-queue/" + base + "/pr-1-" + sha, BaseRef: base, BaseSha: "base", HeadMessage: "Merge #1\n\nAdd a till",
	})
}

func TestMergeGroupsAreBuiltLikePullRequests(t *testing.T) {
	without := func(part func(*eventv1.MergeGroupEvent)) *eventv1.Event {
		e := group("checks_requested", "main", "aaa")
		part(e.GetMergeGroup())
		return e
	}
	for name, c := range map[string]struct {
		event   *eventv1.Event
		reason  eventv1.Reason
		text    string
		context string
	}{
		"into main":       {group("checks_requested", "main", "aaa"), eventv1.Reason_REASON_BUILT, "built", "forge/test"},
		"into production": {group("checks_requested", "production", "aaa"), eventv1.Reason_REASON_BUILT, "built", "forge/staging"},
		"by a bot": {func() *eventv1.Event {
			e := group("checks_requested", "main", "aaa")
			e.Sender = &eventv1.Account{Login: "github-merge-queue[bot]", Type: eventv1.Account_TYPE_BOT}
			return e
		}(), eventv1.Reason_REASON_BUILT, "built", "forge/test"},
		"into another":   {group("checks_requested", "feature/x", "aaa"), eventv1.Reason_REASON_BRANCH_IGNORED, "ignored: base branch is feature/x", ""},
		"another action": {group("dreamt_of", "main", "aaa"), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action dreamt_of", ""},
		"without a head": {without(func(g *eventv1.MergeGroupEvent) { g.HeadSha = "" }), eventv1.Reason_REASON_MALFORMED, "malformed: a merge_group without a repository, a head or a base", ""},
		"without a base": {without(func(g *eventv1.MergeGroupEvent) { g.BaseRef = "" }), eventv1.Reason_REASON_MALFORMED, "malformed: a merge_group without a repository, a head or a base", ""},
		"destroyed, never asked for": {
			group("destroyed", "main", "aaa"), eventv1.Reason_REASON_NOTHING_TO_RUN,
			"ignored: the merge group was destroyed, and nothing of it was queued or running", "",
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			d := r.send(c.event)
			if d.GetReason() != c.reason || d.GetText() != c.text {
				t.Errorf("%v %q, want %v %q", d.GetReason(), d.GetText(), c.reason, c.text)
			}
			built := r.all()
			if (len(built) == 1) != (c.context != "") {
				t.Fatalf("built %v", built)
			}
			if c.context == "" {
				return
			}
			if b := built[0]; b.GetContext() != c.context || b.GetSha() != "aaa" || b.GetPullRequest() != 0 || b.GetFork() ||
				b.GetRef() != c.event.GetMergeGroup().GetHeadRef() || b.GetTitle() != "Merge #1" {
				t.Errorf("%v", b)
			}
			if again := r.again(c.event); again.GetReason() != eventv1.Reason_REASON_DUPLICATE || len(r.all()) != 1 {
				t.Errorf("in another delivery: %v", again)
			}
		})
	}
}

func TestDestroyedMergeGroupIsCancelled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		doomed, other := r.built(group("checks_requested", "main", "aaa")), r.built(group("checks_requested", "main", "bbb"))
		d := r.send(group("destroyed", "main", "aaa"))
		if d.GetReason() != eventv1.Reason_REASON_CANCELLED || !slices.Equal(d.GetBuildIds(), []string{doomed}) || d.GetText() != "cancelled: the merge group was destroyed" {
			t.Errorf("%v", d)
		}
		if b := r.becomes(doomed, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_MERGE_GROUP_DESTROYED {
			t.Errorf("%v", b)
		}
		r.pass(other)
	})
}

// asked and given up, in whatever order it is heard of.
func TestMergeGroupsMayBeHeardOfInAnyOrder(t *testing.T) {
	asked, destroyed := "checks_requested", "destroyed"
	for _, c := range []struct {
		name  string
		order []string
		alive bool
	}{
		{"destroyed first", []string{destroyed, asked}, false},
		{"asked for again", []string{asked, destroyed, asked}, true},
		{"asked for again, late destroy", []string{asked, asked, destroyed}, true},
		{"asked for again, all destroyed", []string{asked, asked, destroyed, destroyed}, false},
		{"asked for again, shuffled", []string{destroyed, destroyed, asked, asked}, false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			for n, action := range c.order {
				e := group(action, "main", "aaa")
				e.DeliveryId = strings.Repeat("d", n+1)
				r.send(e)
			}
			alive := slices.ContainsFunc(r.all(), func(b *schedulerv1.Build) bool { return b.GetState() != schedulerv1.Build_STATE_CANCELLED })
			if alive != c.alive {
				t.Errorf("alive %v: %v", alive, r.all())
			}
		})
	}
}
