package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// tearsDown is the usual file with something for a closed pull request.
func tearsDown() *configv1.GetBuildConfigResponse {
	return rules(&configv1.BuildConfig_PullRequest{Closed: &configv1.Pipeline{Commands: []*configv1.Command{{Name: "down", Run: "./down"}}}})
}

// mergedAs is the merge of a pull request with this head.
func mergedAs(base, head, sha string) *eventv1.Event {
	e := mergedInto(1, base, sha)
	pull(e).Head.Sha = head
	return e
}

// sweptAs is an event as a look at GitHub finds it: later, and without who did it.
func sweptAs(delivery string, e *eventv1.Event, at time.Time) *eventv1.Event {
	e = proto.CloneOf(e)
	e.DeliveryId, pull(e).UpdateTime = delivery, timestamppb.New(at)
	if !pull(e).GetMerged() {
		e.Sender = nil
	}
	return e
}

func TestAClosedPullRequestIsTornDown(t *testing.T) {
	for _, how := range []struct {
		name  string
		event *eventv1.Event
		also  string // what was built of the merge itself
		text  string
	}{
		{"without a merge", closed("aaa", noon.Add(time.Hour)), "", "cancelled: closed without a merge; built"},
		{"merged and deployed", mergedAs("main", "aaa", "m1"), "forge/deploy-staging", "built; built"},
		{"merged into a branch that is not deployed", mergedAs("13.x", "aaa", "m1"), "", "built"},
	} {
		t.Run(strings.ReplaceAll(how.name, " ", "_"), func(t *testing.T) {
			eachStopped(t, func(t *testing.T, r *rig) {
				r.deps.Capacity = 3
				r.start()
				base := pull(how.event).GetBase().GetRef()
				r.config.set("aaa", tearsDown())
				r.config.set("13.x", branches("13.x"))
				r.built(into(base, opened(1, "aaa")))
				d := r.send(how.event)
				if d.GetText() != how.text {
					t.Errorf("%v", d)
				}
				var contexts []string
				for _, b := range r.all() {
					if b.GetContext() != "forge/test" {
						contexts = append(contexts, b.GetContext())
					}
				}
				want := []string{"forge/closed"}
				if how.also != "" {
					want = append(want, how.also)
				}
				if !slices.Equal(contexts, want) {
					t.Errorf("built %v, want %v", contexts, want)
				}
				id := r.all()[0].GetId()
				b := r.build(id)
				if b.GetSha() != "aaa" || b.GetRef() != "refs/pull/1/head" || b.GetPullRequest() != 1 || b.GetAction() != schedulerv1.Build_ACTION_CLOSED {
					t.Errorf("%v", b)
				}
				if u := r.attach(r.spec(id, 1).Runner.Token); u.plan.GetEnvironment()["FORGE_ACTION"] != "closed" || u.plan.GetSteps()[0].GetRun() != "./down" {
					t.Errorf("%v", u.plan)
				}
				if d := r.again(how.event); d.GetReason() == eventv1.Reason_REASON_BUILT || len(r.all()) != 1+len(want) {
					t.Errorf("once more: %v, built %v", d, r.all())
				}
			})
		})
	}
}

// A fork's commit that nobody has stood for tears nothing down.
func TestAForkIsTornDownWhereItsCommitWasApproved(t *testing.T) {
	const head = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
	end := func(sha string) *eventv1.Event { return fromFork("eve", closed(sha, noon.Add(time.Hour))) }
	for _, c := range []struct {
		name     string
		policy   string
		approved bool
		end      *eventv1.Event
		built    bool
		text     string
	}{
		{"approved", trigger.ForkApprove, true, end(head), true, "cancelled: closed without a merge; built"},
		{"not approved", trigger.ForkApprove, false, end(head), false, "cancelled: closed without a merge; ignored: pull_request.closed is not run, since nobody approved 3f2a91c"},
		{"another commit was approved", trigger.ForkApprove, true, end("bbb"), false, "cancelled: closed without a merge; ignored: pull_request.closed is not run, since nobody approved bbb"},
		{"merged, not approved", trigger.ForkApprove, false, fromFork("eve", mergedAs("main", head, "m1")), false, "built; ignored: pull_request.closed is not run, since nobody approved 3f2a91c"},
		{"forks run", trigger.ForkRun, false, end(head), true, "cancelled: closed without a merge; built"},
		{"forks never run", trigger.ForkNever, false, end(head), false, "ignored: closed without a merge, and nothing of it was queued or running"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Policy.Forks = c.policy
			r.start()
			for _, sha := range []string{head, "bbb"} {
				r.config.set(sha, tearsDown())
			}
			r.send(r.github.shows(fromFork("eve", opened(1, head))))
			if c.approved {
				if d := r.send(commentBy("ada", "/forge approve "+head)); d.GetReason() != eventv1.Reason_REASON_APPROVED {
					t.Fatalf("%v", d)
				}
			}
			if d := r.send(c.end); d.GetText() != c.text {
				t.Errorf("decided %q, want %q", d.GetText(), c.text)
			}
			built := slices.ContainsFunc(r.all(), func(b *schedulerv1.Build) bool { return b.GetAction() == schedulerv1.Build_ACTION_CLOSED })
			if built != c.built {
				t.Errorf("torn down: %v, want %v", built, c.built)
			}
		})
	}
}

// What has nothing for a closed pull request is decided as ever, and so is one whose
// base does not count.
func TestAClosedPullRequestIsLeftAlone(t *testing.T) {
	broken := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{}}}
	for name, c := range map[string]struct {
		head, base *configv1.GetBuildConfigResponse
		into       string
	}{
		"nothing for it":        {valid(usual()), valid(usual()), "main"},
		"a broken file":         {broken, valid(usual()), "main"},
		"base branch not meant": {tearsDown(), branches("13.x"), "main"},
		"another base branch":   {tearsDown(), valid(usual()), "feature"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("aaa", c.head)
			r.config.set(c.into, c.base)
			if d := r.send(into(c.into, closed("aaa", noon))); d.GetText() != "ignored: closed without a merge, and nothing of it was queued or running" {
				t.Errorf("%v", d)
			}
			if all := r.all(); len(all) > 0 {
				t.Errorf("built %v", all)
			}
		})
	}
}

// A pull request that was closed, opened again and closed once more is torn down twice,
// whatever order the news come in.
func TestEachEndIsTornDownOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", tearsDown())
		r.built(opened(1, "aaa"))
		first := closed("aaa", noon.Add(time.Minute))
		r.send(first)
		r.built(reopened("aaa", noon.Add(2*time.Minute)))
		second := closed("aaa", noon.Add(3*time.Minute))
		second.DeliveryId = "second"
		r.send(second)
		late := closed("aaa", noon.Add(time.Minute))
		late.DeliveryId = "late"
		pull(late).UpdateTime = timestamppb.New(noon.Add(time.Minute))
		if d := r.send(late); d.GetReason() != eventv1.Reason_REASON_STALE {
			t.Errorf("an end that is over: %v", d)
		}
		r.again(second)
		count := 0
		for _, b := range r.all() {
			if b.GetAction() == schedulerv1.Build_ACTION_CLOSED {
				count++
			}
		}
		if count != 2 {
			t.Errorf("torn down %d times: %v", count, r.all())
		}
	})
}

// An end is one, at whatever time it is told: something else was changed about the pull
// request before a look at GitHub found it, and its webhook comes before or after.
func TestAnEndThatIsToldWithAnotherTimeIsTornDownOnce(t *testing.T) {
	for name, end := range map[string]*eventv1.Event{"closed": closed("aaa", noon.Add(time.Hour)), "merged": mergedAs("main", "aaa", "m1")} {
		found := sweptAs("swept", end, noon.Add(2*time.Hour))
		for order, all := range map[string][]*eventv1.Event{"found first": {found, end}, "told first": {end, found}} {
			t.Run(name+", "+order, func(t *testing.T) {
				r := sqliteRig(t)
				r.start()
				r.config.set("aaa", tearsDown())
				r.built(opened(1, "aaa"))
				r.send(all[0])
				builds := len(r.all())
				if d := r.send(all[1]); d.GetReason() == eventv1.Reason_REASON_BUILT || len(r.all()) != builds || r.all()[0].GetAction() != schedulerv1.Build_ACTION_CLOSED {
					t.Errorf("the second time: %v, built %v", d, r.all())
				}
			})
		}
	}
}
