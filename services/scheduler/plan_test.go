package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// What config may answer instead of a .forge.yml.
var (
	absent  = &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}
	invalid = &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{
		Problems: []*configv1.ConfigInvalid_Problem{{Line: 7, Column: 3, Message: `unknown key "exceute", did you mean "execute"?`}},
	}}}
)

func pull(e *eventv1.Event) *eventv1.PullRequest { return e.GetPullRequest().GetPullRequest() }

// Each row sends an opened pull request into main, changed a little, and names
// what is decided and what is built.
func TestPullRequestEventsAreDecidedByTheTable(t *testing.T) {
	type change = func(*eventv1.Event, *fakeConfig, *Deps)
	base := func(name string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Base.Ref = name }
	}
	action := func(name string) change { return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { e.Action = name } }
	merge := func(name string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { proto.Merge(e, mergedInto(1, name, "ccc")) }
	}
	answer := func(sha string, a *configv1.GetBuildConfigResponse) change {
		return func(_ *eventv1.Event, c *fakeConfig, _ *Deps) { c.set(sha, a) }
	}
	fork := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head.Repository.Id = 8 }
	policy := func(name string) change {
		return func(_ *eventv1.Event, _ *fakeConfig, d *Deps) { d.ForkPolicy = name }
	}
	edited := func(from string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) {
			e.Action, e.GetPullRequest().PreviousBaseRef = "edited", from
		}
	}
	bare := &configv1.BuildConfig{Image: "busybox", Execute: usual().GetExecute()}
	forbidden := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Forbidden{Forbidden: &configv1.ConfigForbidden{Message: "the App may not read contents"}}}

	unmatched := &configv1.GetBuildConfigResponse{Outcome: valid(usual()).GetOutcome(), NoMatchingPaths: true}

	const typo = `.forge.yml:7:3: unknown key "exceute", did you mean "execute"?`
	for _, c := range []struct {
		name     string
		changes  []change
		text     string
		context  string // of the build; empty for none
		sha      string
		state    schedulerv1.Build_State
		promoted bool
	}{
		{"opened", nil, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"reopened", []change{action("reopened")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"synchronize", []change{action("synchronize")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"edited with a new base", []change{edited("feature/x")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a draft", []change{func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Draft = true }}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"by a bot", []change{func(e *eventv1.Event, _ *fakeConfig, _ *Deps) {
			pull(e).Author = &eventv1.Account{Type: eventv1.Account_TYPE_BOT}
		}}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"into production, no staging", []change{base("production")}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"merged into main", []change{merge("main")}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into production", []change{merge("production")}, "built", "forge/deploy-production", "ccc", schedulerv1.Build_STATE_STARTING, false},

		{"labeled", []change{action("labeled")}, "ignored: action labeled", "", "", 0, false},
		{"edited title", []change{action("edited")}, "ignored: action edited", "", "", 0, false},
		{"new base while closed", []change{edited("dev"), func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Open = false }}, "ignored: action edited", "", "", 0, false},
		{"into another branch", []change{base("feature/x")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"merged into another branch", []change{merge("feature/x")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"closed, nothing there", []change{action("closed")}, "ignored: closed without a merge, and nothing of it was queued or running", "", "", 0, false},
		{"merged without a commit", []change{merge("main"), func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).MergeCommitSha = "" }}, "malformed: merged without a merge commit", "", "", 0, false},
		{"without a head", []change{func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head = nil }}, "malformed: a pull_request event without a repository, a number or a head", "", "", 0, false},

		{"no .forge.yml", []change{answer("aaa", absent)}, "no .forge.yml at aaa", "", "", 0, false},
		{"merged, no .forge.yml", []change{merge("main"), answer("ccc", absent)}, "no .forge.yml at ccc", "", "", 0, false},
		{"invalid .forge.yml", []change{answer("aaa", invalid)}, typo, "forge/test", "aaa", schedulerv1.Build_STATE_ERRORED, false},
		{"merged, invalid .forge.yml", []change{merge("main"), answer("ccc", invalid)}, typo, "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_ERRORED, false},
		{"forbidden", []change{answer("aaa", forbidden)}, "the App may not read contents", "forge/test", "aaa", schedulerv1.Build_STATE_ERRORED, false},
		{
			"merged, nothing to deploy",
			[]change{merge("main"), answer("ccc", valid(bare))},
			"promoted: .forge.yml has no deploy to staging, so main goes on to production", "", "", 0, true,
		},
		{"merged into production, nothing to deploy", []change{merge("production"), answer("ccc", valid(bare))}, "ignored: nothing to run for deploy-production in .forge.yml", "", "", 0, false},
		{
			"nothing to deploy, no production",
			[]change{
				merge("main"), answer("ccc", valid(bare)),
				func(_ *eventv1.Event, _ *fakeConfig, d *Deps) { d.ProductionBranches = nil },
			},
			"ignored: nothing to run for deploy-staging in .forge.yml", "", "", 0, false,
		},
		{"no matching paths", []change{answer("aaa", unmatched)}, "ignored: no matching paths", "forge/test", "aaa", schedulerv1.Build_STATE_CANCELLED, false},
		{"a fork, no matching paths", []change{fork, answer("aaa", unmatched)}, "ignored: no matching paths", "forge/test", "aaa", schedulerv1.Build_STATE_CANCELLED, false},
		{"merged, no matching paths", []change{merge("main"), answer("ccc", unmatched)}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},

		{"a fork", []change{fork}, "blocked: comes from a fork and needs approval", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork that is gone", []change{func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head.Repository = nil }}, "blocked: comes from a fork and needs approval", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork, policy run", []change{fork, policy("run")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a fork, policy never", []change{fork, policy("never")}, "ignored: pull requests from forks are not built here", "", "", 0, false},
		{"a fork's merge", []change{merge("main"), fork, policy("never")}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			e := opened(1, "aaa")
			for _, change := range c.changes {
				change(e, r.config, &r.deps)
			}
			r.start()
			d := r.send(e)
			if d.GetText() != c.text {
				t.Errorf("decided %q, want %q", d.GetText(), c.text)
			}
			if again := r.send(e); !proto.Equal(again, d) {
				t.Errorf("decided again as %v, first %v", again, d)
			}
			list, err := r.builds.ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if c.promoted {
				kittest.Eventually(t, patience, func() error {
					r.reporter.mu.Lock()
					defer r.reporter.mu.Unlock()
					if len(r.reporter.promotions) == 0 {
						return fault.New(fault.NotFound, "no promotion")
					}
					if p := r.reporter.promotions[0]; p.GetHead() != "main" || p.GetBase() != "production" || p.GetSha() != "ccc" {
						t.Errorf("promotion %v", p)
					}
					return nil
				})
			}
			if c.context == "" {
				if len(list.GetBuilds()) != 0 || len(d.GetBuildIds()) != 0 {
					t.Errorf("built %v", list.GetBuilds())
				}
				return
			}
			if len(list.GetBuilds()) != 1 || !slices.Equal(d.GetBuildIds(), []string{list.GetBuilds()[0].GetId()}) {
				t.Fatalf("built %v, decided %v", list.GetBuilds(), d)
			}
			b := r.becomes(d.GetBuildIds()[0], c.state)
			if b.GetContext() != c.context || b.GetSha() != c.sha || len(b.GetId()) != 26 || b.GetUrl() != "https://forge.example/builds/"+b.GetId() {
				t.Errorf("built %v", b)
			}
			if c.state == schedulerv1.Build_STATE_ERRORED {
				if shown := r.shown(c.sha, c.context, c.state); shown.GetMessage() != c.text || shown.GetAttempt() != 0 {
					t.Errorf("shown %v", shown)
				}
			}
		})
	}
}

func TestEventIsNotDecidedWhileItsConfigCannotBeRead(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.err = fault.New(fault.Unavailable, "GitHub is down")
		e := opened(1, "aaa")
		_, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("err = %v, want Unavailable", err)
		}
		r.config.mu.Lock()
		r.config.err = nil
		r.config.mu.Unlock()
		r.built(e)
	})
}

func TestSameContentIsBuiltOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var deliveries sync.WaitGroup
		decided := make([]*eventv1.Decision, 12)
		for n := range decided {
			deliveries.Go(func() {
				e := opened(1, "aaa")
				if n%2 == 1 {
					e.DeliveryId = strings.Repeat("x", n)
				}
				answer, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
				if err != nil {
					t.Error(err)
				}
				decided[n] = answer.GetDecision()
			})
		}
		deliveries.Wait()
		for _, d := range decided {
			if len(d.GetBuildIds()) != 1 || d.GetBuildIds()[0] != decided[0].GetBuildIds()[0] {
				t.Errorf("%v and %v", d, decided[0])
			}
		}
		if got := texts(decided...); len(got) != 2 {
			t.Errorf("decisions %q", got)
		}
		// The same commit in another pull request is other content.
		if id := r.built(opened(2, "aaa")); id == decided[0].GetBuildIds()[0] {
			t.Error("another pull request shares the build")
		}
	})
}

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
