package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func (r *rig) staging() *schedulerv1.Environment {
	r.t.Helper()
	answer, err := r.places.GetEnvironment(r.t.Context(), &schedulerv1.GetEnvironmentRequest{Repository: "acme/SHOP", Environment: "staging"})
	if err != nil {
		r.t.Fatalf("staging: %v", err)
	}
	return answer.GetEnvironment()
}

func (r *rig) freeze(message string) *schedulerv1.Environment {
	r.t.Helper()
	answer, err := r.places.FreezeEnvironment(r.t.Context(), &schedulerv1.FreezeEnvironmentRequest{
		Repository: "Acme/shop", Environment: "staging", Message: message,
	})
	if err != nil {
		r.t.Fatalf("freeze: %v", err)
	}
	return answer.GetEnvironment()
}

func (r *rig) unfreeze() {
	r.t.Helper()
	_, err := r.places.UnfreezeEnvironment(r.t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "staging"})
	if err != nil {
		r.t.Fatalf("unfreeze: %v", err)
	}
}

func (r *rig) rollBack(id string) (*schedulerv1.Build, error) {
	answer, err := r.places.RollBackEnvironment(r.t.Context(), &schedulerv1.RollBackEnvironmentRequest{
		Repository: "Acme/shop", Environment: "staging", BuildId: id,
	})
	return answer.GetBuild(), err
}

// deployed waits until staging runs a build's deploy and is free again.
func (r *rig) deployed(id string) {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		if e := r.staging(); e.GetDeployed().GetId() != id || e.GetDeploying() != nil {
			return fmt.Errorf("staging: %v, want build %s and nothing else", e, id)
		}
		return nil
	})
}

// history has config know these commits as one line, the oldest first.
func (r *rig) history(shas ...string) {
	r.config.mu.Lock()
	defer r.config.mu.Unlock()
	r.config.history = shas
}

func TestMergeToldOfTooLateIsNotDeployed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("m1", "m2", "m3")
		newer := r.built(mergedInto(2, "main", "m2"))
		r.pass(newer)
		d := r.send(mergedInto(1, "main", "m1"))
		if d.GetReason() != eventv1.Reason_REASON_ALREADY_CONTAINED || d.GetText() != "already contained in build "+newer || d.GetBuildIds()[0] != newer {
			t.Errorf("%v", d)
		}
		same := mergedInto(7, "main", "m2")
		same.DeliveryId = "another"
		if d := r.send(same); d.GetReason() != eventv1.Reason_REASON_ALREADY_CONTAINED {
			t.Errorf("the very commit, by another pull request: %v", d)
		}
		r.pass(r.built(mergedInto(3, "main", "m3")))
	})
}

func TestDeployThatWasOvertakenInLineIsCancelled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("m0", "m1", "m2")
		first, newer, older := r.built(mergedInto(1, "main", "m0")), r.built(mergedInto(3, "main", "m2")), r.built(mergedInto(2, "main", "m1"))
		r.pass(first)
		r.pass(newer)
		b := r.becomes(older, schedulerv1.Build_STATE_CANCELLED)
		if b.GetReason() != schedulerv1.Build_REASON_ALREADY_CONTAINED || b.GetMessage() != "already contained in build "+newer {
			t.Errorf("%v", b)
		}
		r.deployed(newer)
		if r.engine.running(store.AttemptName(older, 1)) {
			t.Error("its container was started")
		}
	})
}

func TestDeployWaitsUntilGitHubCanTellWhatItContains(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("m1", "m2")
		r.pass(r.built(mergedInto(2, "main", "m2")))
		r.config.mu.Lock()
		r.config.compare = errors.New("no answer")
		r.config.mu.Unlock()
		id := r.built(mergedInto(1, "main", "m1"))
		kittest.Eventually(t, patience, func() error {
			if b := r.build(id); !strings.HasPrefix(b.GetMessage(), "cannot tell whether it is deployed already: ") || b.GetState() != schedulerv1.Build_STATE_QUEUED {
				return fmt.Errorf("%v", b)
			}
			return nil
		})
		r.config.mu.Lock()
		r.config.compare = nil
		r.config.mu.Unlock()
		r.clock.Advance(time.Minute)
		r.wake()
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
	})
}

func TestEnvironmentIsLeftOnlyWithTheContainer(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("the daemon is gone") })
		first, second := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(2, "main", "m2"))
		r.attach(r.spec(first, 1).Runner.Token)
		r.clock.Advance(24 * time.Hour)
		if err := r.service.attempts.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.becomes(first, schedulerv1.Build_STATE_TIMED_OUT)
		kittest.Eventually(t, patience, func() error {
			r.engine.mu.Lock()
			defer r.engine.mu.Unlock()
			if len(r.engine.stops) == 0 {
				return errors.New("the engine was not asked to stop it")
			}
			return nil
		})
		if b := r.build(second); b.GetState() != schedulerv1.Build_STATE_WAITING {
			t.Fatalf("the next deploy is %v while the first's container may still be at work", b.GetState())
		}
		r.engine.set(func(e *memoryEngine) { e.stopErr = nil })
		r.clock.Advance(time.Minute)
		r.wake()
		r.pass(second)
	})
}

func TestFrozenEnvironmentHoldsDeploysBackAndSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		running := r.built(mergedInto(1, "main", "m1"))
		u := r.attach(r.spec(running, 1).Runner.Token)
		waiting := r.built(mergedInto(2, "main", "m2"))
		e := r.freeze("the fair is on")
		if e.GetFreezeTime() == nil || e.GetFreezeMessage() != "the fair is on" || e.GetDeploying().GetId() != running || len(e.GetWaiting()) != 1 {
			t.Errorf("%v", e)
		}
		u.send(passing(1)...)
		r.becomes(running, schedulerv1.Build_STATE_PASSED)
		r.deployed(running)
		later := r.built(mergedInto(3, "main", "m3"))
		for _, id := range []string{waiting, later} {
			b := r.build(id)
			if b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetReason() != schedulerv1.Build_REASON_ENVIRONMENT_FROZEN ||
				b.GetMessage() != "staging is frozen: the fair is on" {
				t.Errorf("%v", b)
			}
		}
		r.freeze("still on")
		r.shown("m2", "forge/deploy-staging", schedulerv1.Build_STATE_WAITING)
		if b := r.build(waiting); b.GetMessage() != "staging is frozen: still on" {
			t.Errorf("%q", b.GetMessage())
		}
		r.unfreeze()
		r.pass(waiting)
		r.pass(later)
		if e := r.staging(); e.GetFreezeTime() != nil || e.GetFreezeMessage() != "" {
			t.Errorf("%v", e)
		}
	})
}

func TestFreezeHoldsBackWhatHasNotBegun(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		test := r.built(opened(9, "aaa"))
		u := r.attach(r.spec(test, 1).Runner.Token)
		next := r.built(mergedInto(1, "main", "m1")) // has the environment, and no place
		if e := r.staging(); e.GetDeploying().GetId() != next {
			t.Fatalf("%v", e)
		}
		if e := r.freeze("wait"); e.GetDeploying() != nil || e.GetWaiting()[0].GetId() != next {
			t.Errorf("%v", e)
		}
		u.send(passing(2)...)
		r.becomes(test, schedulerv1.Build_STATE_PASSED)
		if b := r.build(next); b.GetMessage() != "staging is frozen: wait" {
			t.Errorf("%v", b)
		}
		r.unfreeze()
		r.pass(next)
	})
}

func TestRollBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("m1", "m2", "m3", "m4")
		good, bad := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(3, "main", "m3"))
		r.pass(good)
		r.pass(bad)
		r.deployed(bad)
		r.freeze("m3 is bad")
		waiting := r.built(mergedInto(4, "main", "m4"))

		back, err := r.rollBack(good)
		if err != nil || back.GetSha() != "m1" || back.GetRollBackOf() != good || back.GetId() == good || back.GetPullRequest() != 1 {
			t.Fatalf("%v, %v", back, err)
		}
		if again, err := r.rollBack(good); err != nil || again.GetId() != back.GetId() {
			t.Errorf("asked twice: %v, %v", again, err)
		}
		promotions := func() (n int) {
			r.reporter.set(func(f *fakeReporter) { n = len(f.promotions) })
			return n
		}
		kittest.Eventually(t, patience, func() error {
			if promotions() != 2 {
				return errors.New("the deploys' promotions are not asked for yet")
			}
			return nil
		})
		r.pass(back.GetId())
		r.deployed(back.GetId())
		if d := r.send(mergedInto(2, "main", "m2")); d.GetText() != "already contained in build "+bad {
			t.Errorf("a late merge undoes the roll back: %v", d)
		}
		r.unfreeze()
		r.pass(waiting)
		r.deployed(waiting)
		kittest.Eventually(t, patience, func() error {
			if n := promotions(); n != 3 {
				return fmt.Errorf("%d promotions, want one per deploy that went forward", n)
			}
			return nil
		})
		if forth, err := r.rollBack(bad); err != nil || forth.GetSha() != "m3" {
			t.Errorf("and forth again: %v, %v", forth, err)
		}
	})
}

func TestRollBackGoesAheadOfTheLine(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		good := r.built(mergedInto(1, "main", "m1"))
		r.pass(good)
		r.deployed(good)
		running := r.built(mergedInto(2, "main", "m2"))
		r.spec(running, 1)
		waiting := r.built(mergedInto(3, "main", "m3"))
		back, err := r.rollBack(good)
		if err != nil || back.GetMessage() != "staging is deploying build "+running {
			t.Fatalf("%v, %v", back, err)
		}
		if line := r.staging().GetWaiting(); line[0].GetId() != back.GetId() || line[1].GetId() != waiting {
			t.Errorf("%v", line)
		}
		r.pass(running)
		r.pass(back.GetId())
		r.pass(waiting)
	})
}

func TestEnvironmentsAreListedInPages(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.pass(r.built(mergedInto(1, "main", "m1")))
		r.pass(r.built(mergedInto(2, "production", "p1")))
		other := mergedInto(3, "main", "x1")
		other.Repository = &eventv1.Repository{Id: 8, Owner: "Acme", Name: "blog"}
		r.pass(r.built(other))
		list := func(req *schedulerv1.ListEnvironmentsRequest) (names, next string) {
			answer, err := r.places.ListEnvironments(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, e := range answer.GetEnvironments() {
				lines = append(lines, e.GetRepository()+" "+e.GetName()+" "+e.GetDeployed().GetSha()+"; ")
			}
			return strings.Join(lines, ""), answer.GetNextPageToken()
		}
		first, next := list(&schedulerv1.ListEnvironmentsRequest{PageSize: 2})
		rest, end := list(&schedulerv1.ListEnvironmentsRequest{PageSize: 2, PageToken: next})
		if got := first + rest; got != "Acme/shop production p1; Acme/shop staging m1; Acme/blog staging x1; " || next == "" || end != "" {
			t.Errorf("%q, %q, %q", got, next, end)
		}
		if one, _ := list(&schedulerv1.ListEnvironmentsRequest{Repository: "acme/Blog"}); one != "Acme/blog staging x1; " {
			t.Errorf("%q", one)
		}
	})
}

func TestEnvironmentCallsSayWhatIsWrong(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		test, failed := r.built(opened(1, "aaa")), r.built(mergedInto(1, "main", "m1"))
		r.pass(test)
		u := r.attach(r.spec(failed, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(failed, schedulerv1.Build_STATE_FAILED)
		get := func(repository, name string) error {
			_, err := r.places.GetEnvironment(ctx, &schedulerv1.GetEnvironmentRequest{Repository: repository, Environment: name})
			return err
		}
		freeze := func(repository, message string) error {
			_, err := r.places.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{Repository: repository, Environment: "staging", Message: message})
			return err
		}
		unfreeze := func(name string) error {
			_, err := r.places.UnfreezeEnvironment(ctx, &schedulerv1.UnfreezeEnvironmentRequest{Repository: "acme/shop", Environment: name})
			return err
		}
		back := func(id string) error {
			_, err := r.rollBack(id)
			return err
		}
		_, page := r.places.ListEnvironments(ctx, &schedulerv1.ListEnvironmentsRequest{PageToken: "x"})
		for what, c := range map[string]struct {
			err  error
			code codes.Code
			says string
		}{
			"another environment":  {get("acme/shop", "Moon"), codes.InvalidArgument, `environment "Moon": expected a name such as staging or production: small letters, digits and -, 50 at most`},
			"one never heard of":   {get("acme/shop", "moon"), codes.NotFound, "nothing was ever to be deployed to moon of acme/shop"},
			"nothing deployed":     {get("acme/shop", "production"), codes.NotFound, "nothing was ever to be deployed to production of acme/shop"},
			"unfrozen, unheard of": {unfreeze("moon"), codes.NotFound, "nothing was ever to be deployed to moon of acme/shop, and it is not frozen"},
			"unfrozen all along":   {unfreeze("staging"), codes.OK, ""},
			"unknown repository":   {freeze("acme/none", "why"), codes.NotFound, "nothing of acme/none was ever built here"},
			"no reason":            {freeze("acme/shop", ""), codes.InvalidArgument, "message: say why, for those who wait"},
			"an endless reason":    {freeze("acme/shop", strings.Repeat("é", 101)), codes.InvalidArgument, "message: at most 100 characters"},
			"a reason in lines":    {freeze("acme/shop", "one\ntwo"), codes.InvalidArgument, "message: one line, without control characters"},
			"back to a test":       {back(test), codes.FailedPrecondition, "build " + test + " is no successful deploy to staging of Acme/shop"},
			"back to what failed":  {back(failed), codes.FailedPrecondition, "build " + failed + " is no successful deploy to staging of Acme/shop"},
			"back to nothing":      {back("none"), codes.NotFound, "no build none: there never was one, or it was pruned since"},
			"a page of one's own":  {page, codes.InvalidArgument, "page_token is not one of ours"},
			"frozen before it was": {freeze("acme/shop", "why"), codes.OK, ""},
		} {
			if status.Code(c.err) != c.code || status.Convert(c.err).Message() != c.says {
				t.Errorf("%s: %v, want %v %q", what, c.err, c.code, c.says)
			}
		}
	})
}

// A misspelt name is said, and what is not frozen any more is no environment.
func TestWhatWasOnlyEverFrozenIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		r.built(opened(1, "aaa"))
		frozen := &schedulerv1.FreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "prodution", Message: "fair"}
		for range 2 {
			answer, err := r.places.FreezeEnvironment(ctx, frozen)
			if want := "nothing was ever to be deployed to prodution of Acme/shop: it is frozen for when something is"; err != nil || answer.GetWarning() != want || answer.GetEnvironment().GetFreezeTime() == nil {
				t.Errorf("%v, %v", answer, err)
			}
		}
		thawed := &schedulerv1.UnfreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "prodution"}
		if answer, err := r.places.UnfreezeEnvironment(ctx, thawed); err != nil || answer.GetEnvironment().GetName() != "prodution" || answer.GetEnvironment().GetFreezeTime() != nil {
			t.Errorf("%v, %v", answer, err)
		}
		if all, err := r.places.ListEnvironments(ctx, &schedulerv1.ListEnvironmentsRequest{}); err != nil || len(all.GetEnvironments()) != 0 {
			t.Errorf("%v, %v", all, err)
		}
		if _, err := r.places.UnfreezeEnvironment(ctx, thawed); status.Code(err) != codes.NotFound {
			t.Error(err)
		}
		r.built(mergedInto(1, "main", "m1"))
		if answer, err := r.places.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "staging", Message: "fair"}); err != nil || answer.GetWarning() != "" {
			t.Errorf("%v, %v", answer, err)
		}
	})
}
