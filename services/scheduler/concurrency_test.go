package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// queueing is a rig whose commits name concurrency groups.
type queueing struct{ *rig }

func eachQueueing(t *testing.T, test func(t *testing.T, r queueing)) {
	each(t, func(t *testing.T, r *rig) { test(t, queueing{r}) })
}

// names has a commit name a group, whatever is run of it.
func (r queueing) names(sha, group string, cancel bool, changes ...func(*configv1.BuildConfig)) {
	config := usual()
	config.Push = &configv1.Push{Branches: []string{"**"}, Tags: []string{"**"}, Execute: config.GetExecute()}
	config.Concurrency = &configv1.Concurrency{Group: group, Cancel: cancel}
	for _, change := range changes {
		change(config)
	}
	r.config.set(sha, valid(config))
}

// pushes sends a push to main of a commit that names the group, and returns its build.
func (r queueing) pushes(sha, group string, cancel bool, changes ...func(*configv1.BuildConfig)) string {
	r.t.Helper()
	r.names(sha, group, cancel, changes...)
	return r.built(pushedTo("refs/heads/main", sha))
}

// waitsFor checks that one build waits for another.
func (r queueing) waitsFor(id, before, group string) {
	r.t.Helper()
	b := r.build(id)
	if want := "waits for build " + before + " of concurrency group " + group; b.GetState() != schedulerv1.Build_STATE_WAITING ||
		b.GetReason() != schedulerv1.Build_REASON_CONCURRENCY || b.GetMessage() != want || b.GetConcurrencyGroup() != group {
		r.t.Errorf("%s: %v %v %q, want %q", id, b.GetState(), b.GetReason(), b.GetMessage(), want)
	}
}

// running waits until a build has a container.
func (r queueing) running(id string) { r.t.Helper(); r.spec(id, 1) }

func TestBuildsOfAGroupRunInOrder(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		first, second, third := r.pushes("aaa", "tests", false), r.pushes("bbb", "tests", false), r.pushes("ccc", "tests", false)
		other := r.pushes("ddd", "others", false)
		r.running(first)
		r.running(other)
		r.waitsFor(second, first, "tests")
		r.waitsFor(third, second, "tests")
		r.shown("bbb", "forge/push", schedulerv1.Build_STATE_WAITING)
		r.pass(first)
		r.pass(second)
		r.pass(third)
	})
}

func TestOneThatWaitsIsCancelledAndTheNextWaitsForTheOneBefore(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		first, second, third := r.pushes("aaa", "tests", false), r.pushes("bbb", "tests", false), r.pushes("ccc", "tests", false)
		r.running(first)
		r.cancelled(second)
		r.waitsFor(third, first, "tests")
		r.pass(first)
		r.pass(third)
		kittest.Eventually(t, patience, func() error {
			if left := r.count(`SELECT count(*) FROM builds WHERE concurrency <> ''`); left != 0 {
				return fmt.Errorf("%d are in a group still", left)
			}
			return nil
		})
	})
}

// The newest takes the place of those before it, and begins once nothing of them runs.
func TestTheNewestOfAGroupCancelsTheOlder(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		first := r.pushes("aaa", "tests", false)
		second := r.pushes("bbb", "tests", false)
		u := r.attach(r.spec(first, 1).Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		third := r.pushes("ccc", "tests", true)
		b := r.becomes(second, schedulerv1.Build_STATE_CANCELLED)
		if b.GetReason() != schedulerv1.Build_REASON_CONCURRENCY || b.GetSupersededBy() != third || b.GetMessage() != "build "+third+" of concurrency group tests took its place" {
			t.Errorf("%v", b)
		}
		r.waitsFor(third, first, "tests")
		if told := u.recv().GetCancel().GetMessage(); told != "build "+third+" of concurrency group tests took its place" {
			t.Errorf("the runner is told %q", told)
		}
		u.send(over(2, schedulerv1.Ended_CAUSE_CANCELLED))
		if b := r.becomes(first, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_CONCURRENCY || b.GetSupersededBy() != third {
			t.Errorf("%v", b)
		}
		r.pass(third)
	})
}

// ofBot is an event of a pull request that a bot has opened.
func ofBot(e *eventv1.Event) *eventv1.Event {
	pull(e).Author = &eventv1.Account{Login: "dependabot[bot]", Type: eventv1.Account_TYPE_BOT}
	return e
}

// Whatever a pull request, a fork or a branch that nobody has merged calls its group: it
// holds and cancels none of another tier, in either order.
func TestNobodyHoldsOrCancelsWhatIsTrustedMore(t *testing.T) {
	pulls := map[string]func() *eventv1.Event{
		"pull request":         func() *eventv1.Event { return opened(1, "bbb") },
		"fork":                 func() *eventv1.Event { return fromFork("ada", opened(1, "bbb")) },
		"bot":                  func() *eventv1.Event { return ofBot(opened(1, "bbb")) },
		"branch":               func() *eventv1.Event { return pushedTo("refs/heads/fix", "bbb") },
		"branch like the name": func() *eventv1.Event { return pushedTo("refs/heads/main-2", "bbb") },
		"merge queue":          func() *eventv1.Event { return group("checks_requested", "main", "bbb") },
	}
	for name, attack := range pulls {
		for _, named := range []string{"refs/heads/main", "merged refs/heads/main", "${FORGE_REF}"} {
			t.Run(strings.ReplaceAll(name+" "+named, " ", "_"), func(t *testing.T) {
				r := queueing{sqliteRig(t)}
				r.start()
				held := r.pushes("aaa", "${FORGE_REF}", false)
				r.running(held)
				r.names("bbb", named, true)
				attacker := r.built(attack())
				r.running(attacker)
				if b := r.build(held); store.Ended(b.GetState()) || b.GetReason() != 0 {
					t.Errorf("what was merged is %v", b)
				}
				r.cancelled(held)
				next := r.pushes("ccc", "${FORGE_REF}", true)
				r.running(next)
				if b := r.build(attacker); store.Ended(b.GetState()) {
					t.Errorf("the other way round it is %v", b)
				}
			})
		}
	}
	t.Run("forks_of_each_other", func(t *testing.T) {
		r := queueing{sqliteRig(t)}
		r.start()
		r.names("aaa", "x", true)
		r.names("bbb", "x", true)
		one, two := r.built(fromFork("ada", opened(1, "aaa"))), r.built(fromFork("ada", opened(2, "bbb")))
		r.running(one)
		r.running(two)
	})
}

func TestDeploysAreInNoGroup(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		push := r.pushes("aaa", "all", false)
		r.running(push)
		r.names("bbb", "all", true)
		deploy := r.built(mergedInto(1, "main", "bbb"))
		r.running(deploy)
		r.pass(deploy)
		r.pass(push)
		if b := r.build(deploy); b.GetConcurrencyGroup() != "" {
			t.Errorf("%v", b)
		}
	})
}

func TestAGroupThatComesToNothingHoldsNobody(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		first, second := r.pushes("aaa", "${FORGE_TAG}", false), r.pushes("bbb", "${FORGE_TAG}", false)
		r.running(first)
		r.running(second)
	})
}

// Pull requests go on superseding as they do without a group.
func TestANewHeadIsBuiltThoughItsPredecessorWaits(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		for _, sha := range []string{"aaa", "bbb", "ccc"} {
			r.names(sha, "the only machine", false)
		}
		other := r.built(opened(2, "ccc"))
		r.running(other)
		first := r.built(opened(1, "aaa"))
		r.waitsFor(first, other, "the only machine")
		second := r.send(synchronize("aaa", "bbb", noon.Add(time.Minute))).GetBuildIds()[0]
		if b := r.becomes(first, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_SUPERSEDED || b.GetSupersededBy() != second {
			t.Errorf("%v", b)
		}
		r.waitsFor(second, other, "the only machine")
		r.pass(other)
		r.pass(second)
	})
}

func TestJobsOfABuildWaitForItsTurn(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		jobs := func(c *configv1.BuildConfig) {
			c.Push.Execute = &configv1.Pipeline{Jobs: []*configv1.Job{job("lint"), job("test", needs("lint"))}}
		}
		first := r.pushes("aaa", "tests", false, jobs)
		second := r.pushes("bbb", "tests", false, jobs)
		r.running(store.JobID(first, 1))
		r.waitsFor(second, first, "tests")
		if got := jobsOf(r.rig, second); got != "lint waiting; test waiting" {
			t.Errorf("its jobs: %s", got)
		}
		r.pass(store.JobID(first, 1))
		r.fail(store.JobID(first, 2), 1, 1)
		r.pass(store.JobID(second, 1))
		third := r.pushes("ccc", "tests", true, jobs)
		r.cancelledJobs(second)
		r.pass(store.JobID(third, 1))

		// What failed is run again in its group.
		answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: first, FailedOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		r.waitsFor(answer.GetBuild().GetId(), third, "tests")
		r.pass(store.JobID(third, 2))
		r.pass(store.JobID(answer.GetBuild().GetId(), 2))
	})
}

func (r queueing) cancelledJobs(id string) {
	r.t.Helper()
	r.clock.Advance(3 * r.service.attempts.Runners.Grace)
	r.sweep()
	r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
}

func TestAForkThatIsApprovedGetsInLine(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		r.names("fff", "x", false)
		r.names("ggg", "x", false)
		blocked := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		if b := r.build(blocked); b.GetState() != schedulerv1.Build_STATE_BLOCKED || r.count(`SELECT count(*) FROM builds WHERE concurrency <> ''`) != 0 {
			t.Errorf("%v", b)
		}
		if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: blocked}); err != nil {
			t.Fatal(err)
		}
		r.running(blocked)
		if r.count(`SELECT count(*) FROM builds WHERE concurrency = 'strange/1 x'`) != 1 {
			t.Error("it is in no group")
		}
		r.pass(blocked)
	})
}

func TestGroupsSurviveARestart(t *testing.T) {
	eachQueueing(t, func(_ *testing.T, r queueing) {
		first, second := r.pushes("aaa", "tests", false), r.pushes("bbb", "tests", false)
		r.running(first)
		r.stop()
		r.start()
		r.waitsFor(second, first, "tests")
		third := r.pushes("ccc", "tests", false)
		r.waitsFor(third, second, "tests")
		r.pass(first)
		r.pass(second)
		r.pass(third)
	})
}

// A scheduler that knows no groups ends a build, or a container is never gone: those who
// wait do not do so for ever.
func TestAGroupIsLeftWhateverHappens(t *testing.T) {
	eachQueueing(t, func(t *testing.T, r queueing) {
		first, second := r.pushes("aaa", "tests", false), r.pushes("bbb", "tests", false)
		r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("the machine is gone") })
		r.pass(first)
		r.sweep()
		r.waitsFor(second, first, "tests")
		r.clock.Advance(2 * time.Hour)
		r.sweep()
		r.engine.set(func(e *memoryEngine) { e.stopErr = nil })
		r.pass(second)

		third, fourth := r.pushes("ccc", "tests", false), r.pushes("ddd", "tests", false)
		r.running(third)
		err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error {
			return store.Groups{Tx: t}.Join(ctx, second, "merged tests") // as if nobody had noticed its end
		})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(third)
		kittest.Eventually(t, patience, func() error {
			if message := r.build(fourth).GetMessage(); message != "waits for build "+second+" of concurrency group tests" {
				return errors.New(message)
			}
			return nil
		})
		r.sweep()
		r.pass(fourth)
	})
}

// However many replicas are pushed to at once: one runs at a time, all run.
func TestReplicasLetOneOfAGroupRunAtATime(t *testing.T) {
	eachTwice(t, func(t *testing.T, here, there *rig) {
		const count = 8
		q := queueing{here}
		for n := range count {
			q.names(fmt.Sprintf("aaa%d", n), "tests", false)
		}
		there.config = here.config
		ids := make(chan string, count)
		for n := range count {
			to := []*rig{here, there}[n%2]
			go func() {
				answer, err := to.events.ReceiveEvent(context.Background(), &schedulerv1.ReceiveEventRequest{Event: pushedTo("refs/heads/main", fmt.Sprintf("aaa%d", n))})
				if err != nil || len(answer.GetDecision().GetBuildIds()) != 1 {
					t.Errorf("%v, %v", answer, err)
					ids <- ""
					return
				}
				ids <- answer.GetDecision().GetBuildIds()[0]
			}()
		}
		all := map[string]bool{}
		for range count {
			all[<-ids] = true
		}
		for range count {
			var now string
			kittest.Eventually(t, patience, func() error {
				for _, name := range here.engine.attempts() {
					if id := strings.TrimSuffix(name, "-1"); all[id] {
						now = id
						return nil
					}
				}
				return errors.New("none runs")
			})
			if running := len(here.engine.attempts()); running != 1 {
				t.Errorf("%d run at once", running)
			}
			here.pass(now)
			delete(all, now)
		}
	})
}
