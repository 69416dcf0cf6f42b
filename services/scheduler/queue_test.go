package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestCapacityBoundsWhatRunsAndDeploysGoFirst(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first, second := r.built(opened(1, "a1")), r.built(opened(2, "a2"))
		r.spec(first, 1)
		r.spec(second, 1)
		third := r.built(opened(3, "a3"))
		deploy := r.built(mergedInto(4, "main", "m4"))
		for _, id := range []string{third, deploy} {
			if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_QUEUED {
				t.Errorf("%s is %v while two others hold both places", b.GetContext(), b.GetState())
			}
		}
		r.pass(first)
		r.spec(deploy, 1)
		if b := r.build(third); b.GetState() != schedulerv1.Build_STATE_QUEUED {
			t.Errorf("the test is %v before a place is free", b.GetState())
		}
		r.pass(second)
		r.spec(third, 1)
	})
}

func TestOneDeployAtATimePerEnvironmentInOrder(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		one, two, three := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(2, "main", "m2")), r.built(mergedInto(3, "main", "m3"))
		production := r.built(mergedInto(4, "production", "p1"))
		r.spec(production, 1) // another environment, not held up
		for _, id := range []string{two, three} {
			b := r.build(id)
			if b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetReason() != schedulerv1.Build_REASON_ENVIRONMENT_BUSY || b.GetMessage() != "staging is deploying build "+one {
				t.Errorf("%v", b)
			}
		}
		r.pass(one)
		r.spec(two, 1)
		if b := r.build(three); b.GetMessage() != "staging is deploying build "+two {
			t.Errorf("%q", b.GetMessage())
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: three}); err != nil {
			t.Fatal(err)
		}
		r.becomes(three, schedulerv1.Build_STATE_CANCELLED)
		four := r.built(mergedInto(5, "main", "m5"))
		r.pass(two)
		r.pass(four)
		kittest.Eventually(t, patience, func() error {
			r.reporter.mu.Lock()
			defer r.reporter.mu.Unlock()
			last := len(r.reporter.promotions) - 1
			if last < 0 || r.reporter.promotions[last].GetSha() != "m5" {
				return fmt.Errorf("promotions %v", r.reporter.promotions)
			}
			if p := r.reporter.promotions[last]; p.GetHead() != "main" || p.GetBase() != "production" || p.GetBuildUrl() != "https://forge.example/builds/"+four {
				t.Errorf("promotion %v", p)
			}
			return nil
		})
	})
}

func TestEngineThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.startErr = errors.New("connection refused") })
		id := r.built(opened(1, "aaa"))
		kittest.Eventually(t, patience, func() error {
			b := r.build(id)
			if b.GetState() != schedulerv1.Build_STATE_QUEUED || b.GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
				return fmt.Errorf("%v", b)
			}
			if b.GetMessage() != "the engine does not answer: connection refused" || b.GetAttempt() != 1 {
				t.Errorf("%v", b)
			}
			return nil
		})
		r.engine.set(func(e *memoryEngine) { e.startErr = nil })
		r.clock.Advance(time.Minute)
		r.wake()
		r.pass(id)
	})
}

func TestContainerThatCannotEverStartErrorsTheBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.startErr = fault.New(fault.Invalid, "image golang:1.26 not found") })
		id := r.built(opened(1, "aaa"))
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_START_FAILED || b.GetMessage() != "image golang:1.26 not found" {
			t.Errorf("%v", b)
		}
	})
}

func TestContainerThatStartsAfterItsBuildWasCancelledIsRemoved(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		held := make(chan struct{})
		r.engine.set(func(e *memoryEngine) { e.held = held })
		id := r.built(opened(1, "aaa"))
		r.becomes(id, schedulerv1.Build_STATE_STARTING)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		close(held)
		spec := r.spec(id, 1)
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(spec.Attempt) {
				return errors.New("the container is still there")
			}
			return nil
		})
		if err := r.stream(spec.Runner.Token, &schedulerv1.Hello{RunnerId: "late"}).refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("its runner: %v", err)
		}
	})
}

func TestBuildGoesOnAfterARestart(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.start()
		running, queued := r.built(opened(1, "a1")), r.built(opened(2, "a2"))
		third := r.built(opened(3, "a3"))
		token := r.spec(running, 1).Runner.Token
		r.spec(queued, 1)
		u := r.attach(token)
		all := passing(2)
		u.send(all[:2]...)
		u.acked(2)
		r.stop()

		r.start()
		r.sweep()
		if b := r.build(running); b.GetState() != schedulerv1.Build_STATE_RUNNING || b.GetAttempt() != 1 {
			t.Fatalf("after the restart: %v", b)
		}
		u = r.reattach(token)
		u.send(all[u.stored:]...)
		r.becomes(running, schedulerv1.Build_STATE_PASSED)
		r.pass(queued)
		r.pass(third)
		r.shown("a1", "forge/test", schedulerv1.Build_STATE_PASSED)
	})
}

// A crash between the row and the engine: whoever comes next asks the engine
// again for the same attempt, and either token opens it.
func TestStartThatWasCutOffIsDoneAgain(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		held := make(chan struct{})
		defer close(held)
		r.engine.held = held
		r.start()
		id := r.built(opened(1, "aaa"))
		r.becomes(id, schedulerv1.Build_STATE_STARTING)
		r.clock.Advance(due.Lease)
		before, err := r.service.attempts.ClaimStarts(t.Context(), 1) // another replica, which dies
		if err != nil || len(before) != 1 || before[0].Build.GetAttempt() != 1 {
			t.Fatalf("claimed %v, %v", before, err)
		}
		r.clock.Advance(due.Lease)
		r.engine.set(func(e *memoryEngine) { e.held = nil })
		r.wake()
		spec := r.spec(id, 1)
		if spec.Runner.Token == before[0].Token {
			t.Error("the token was stored in the clear")
		}
		u := r.attach(before[0].Token)
		u.send(passing(2)...)
		if b := r.becomes(id, schedulerv1.Build_STATE_PASSED); b.GetAttempt() != 1 {
			t.Errorf("%v", b)
		}
	})
}

// On PostgreSQL another replica may hold the leases, so there they run out.
func TestRestartTakesUpWhatAKilledSchedulerHeld(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		db := r.open()
		r.deps.DB = db
		killed, err := New(r.deps)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := killed.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: opened(1, "aaa")})
		if err != nil {
			t.Fatal(err)
		}
		starts, err := killed.attempts.ClaimStarts(t.Context(), 9)
		if err != nil || len(starts) != 1 {
			t.Fatalf("claimed %v, %v", starts, err)
		}
		if told, err := killed.store.ClaimTargets(t.Context(), 9); err != nil || len(told) != 1 {
			t.Fatalf("claimed %v, %v", told, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db.Dialect == sqldb.Postgres {
			r.clock.Advance(due.Lease)
		}
		r.start()
		u := r.attach(r.spec(answer.GetDecision().GetBuildIds()[0], 1).Runner.Token)
		u.send(passing(2)...)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
	})
}

func TestLostTestRunsOnceMoreAndThenErrors(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		first := r.spec(id, 1)
		u := r.attach(first.Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		vanish := func(attempt string) { r.engine.set(func(e *memoryEngine) { delete(e.containers, attempt) }) }
		vanish(first.Attempt)
		r.sweep()
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("%v although its runner was just heard", b.GetState())
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = errors.New("the daemon is gone") })
		r.clock.Advance(11 * time.Second)
		if err := r.service.attempts.Sweep(t.Context()); err == nil || r.build(id).GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("an engine that cannot tell: %v, %v", err, r.build(id).GetState())
		}
		r.engine.set(func(e *memoryEngine) { e.listErr = nil })
		r.sweep()
		second := r.spec(id, 2)
		if err := u.refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the lost runner: %v", err)
		}
		// Nothing the first attempt left shows in the second.
		if b := r.build(id); b.GetSteps()[0].GetState() != schedulerv1.Step_STATE_PENDING {
			t.Errorf("%v", b)
		}
		if err := r.stream(first.Runner.Token, &schedulerv1.Hello{RunnerId: "runner-1"}).refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the lost runner came back: %v", err)
		}
		r.attach(second.Runner.Token)
		r.engine.set(func(e *memoryEngine) {
			e.containers[second.Attempt] = engine.Container{Attempt: second.Attempt, ExitCode: 137}
		})
		r.clock.Advance(11 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetMessage() != "the container ended with exit code 137 before its commands did" {
			t.Errorf("%v", b)
		}
	})
}

func TestWhatIsStoppedFromOutsideIsLost(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		stopped := func(id string, attempt int32) {
			r.attach(r.spec(id, attempt).Runner.Token).send(began(1, 1), over(2, schedulerv1.Ended_CAUSE_STOPPED))
		}
		id := r.built(opened(1, "aaa"))
		stopped(id, 1)
		stopped(id, 2)
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetAttempt() != 2 {
			t.Errorf("%v", b)
		}
		id = r.built(mergedInto(2, "main", "m1"))
		stopped(id, 1)
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetAttempt() != 1 {
			t.Errorf("a deploy: %v", b)
		}
	})
}

func TestLostDeployIsNotRunAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(mergedInto(1, "main", "m1"))
		next := r.built(mergedInto(2, "main", "m2"))
		r.attach(r.spec(id, 1).Runner.Token)
		r.engine.set(func(e *memoryEngine) { clear(e.containers) })
		r.clock.Advance(11 * time.Second)
		r.sweep()
		if b := r.becomes(id, schedulerv1.Build_STATE_ERRORED); b.GetMessage() != "the container is gone" {
			t.Errorf("%v", b)
		}
		r.spec(next, 1)
	})
}

func TestContainerOutOfMemoryFailsTheBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		r.attach(spec.Runner.Token)
		r.engine.set(func(e *memoryEngine) {
			e.containers[spec.Attempt] = engine.Container{Attempt: spec.Attempt, ExitCode: 137, OutOfMemory: true}
		})
		r.clock.Advance(11 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_OUT_OF_MEMORY || b.GetMessage() != "there was no memory left" {
			t.Errorf("%v", b)
		}
	})
}

func TestStepOutOfMemoryFailsTheBuildAndNamesTheLimit(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := usual()
		config.Resources = &configv1.Resources{Memory: 48 << 20}
		r.config.set("aaa", valid(config))
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		killed := exited(2, 1, 137)
		killed.GetStepEnded().OutOfMemory = true
		u.send(began(1, 1), killed, over(3, schedulerv1.Ended_CAUSE_DONE))
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_OUT_OF_MEMORY || !b.GetSteps()[0].GetOutOfMemory() ||
			b.GetMessage() != `step 1 "vet" ended with exit code 137: the memory limit of 48 MiB was reached` {
			t.Errorf("%v", b)
		}
	})
}

func TestRunnerThatNeverComesErrorsTheBuild(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		r.spec(id, 1)
		kittest.Eventually(t, patience, func() error {
			live, err := r.service.store.LiveAttempts(t.Context())
			if err != nil || len(live) != 1 || !live[0].Placed {
				return fmt.Errorf("live %v, %w", live, err)
			}
			return nil
		})
		r.clock.Advance(attempt.AttachWithin)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_START_FAILED || !strings.Contains(b.GetMessage(), "FORGE_RUNNER_URL") {
			t.Errorf("%v", b)
		}
	})
}

func TestContainersOfNoLiveAttemptAreRemoved(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		r.pass(id)
		kept := r.built(opened(2, "bbb"))
		r.spec(kept, 1)
		r.engine.set(func(e *memoryEngine) {
			for _, name := range []string{store.AttemptName(id, 1), "somebody-else", store.AttemptName(strings.Repeat("z", 26), 3)} {
				e.containers[name] = engine.Container{Attempt: name, Running: true}
			}
		})
		r.sweep()
		kittest.Eventually(t, patience, func() error {
			all, _ := r.engine.List(t.Context())
			if len(all) != 1 || all[0].Attempt != store.AttemptName(kept, 1) {
				return fmt.Errorf("left: %v", all)
			}
			return nil
		})
	})
}

func TestReporterThatWasDownIsToldTheNewestInTheEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.reporter.set(func(f *fakeReporter) { f.down = true })
		id := r.built(opened(1, "aaa"))
		r.pass(id)
		kittest.Eventually(t, patience, func() error {
			r.reporter.mu.Lock()
			defer r.reporter.mu.Unlock()
			if r.reporter.refused == 0 {
				return errors.New("the reporter was not asked")
			}
			return nil
		})
		r.reporter.set(func(f *fakeReporter) { f.down = false })
		kittest.Eventually(t, patience, func() error {
			r.clock.Advance(time.Minute)
			r.wake()
			if r.reporter.shows("aaa", "forge/test").GetBuild().GetState() != schedulerv1.Build_STATE_PASSED {
				return errors.New("not told yet")
			}
			return nil
		})
		var versions []int64
		r.reporter.set(func(f *fakeReporter) {
			for _, report := range f.reports {
				versions = append(versions, report.GetVersion())
			}
		})
		if !slices.IsSorted(versions) || versions[0] == sqldb.Micros(noon) {
			t.Errorf("versions told %v: in order, and not what was over by then", versions)
		}
	})
}

func TestWhatTheReporterWasToldIsNotToldAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.pass(r.built(opened(1, "aaa")))
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		kittest.Eventually(t, patience, func() error {
			var owed int
			err := r.service.store.DB.Read().QueryRowContext(t.Context(),
				`SELECT count(*) FROM targets WHERE due_time < $1`, int64(store.Never)).Scan(&owed)
			if owed > 0 {
				return fmt.Errorf("%d targets are to be told again", owed)
			}
			return err
		})
	})
}

func TestOlderBuildOfASharedTargetIsNotShownAnyMore(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		older, newer := r.built(opened(1, "aaa")), r.built(opened(2, "aaa"))
		r.pass(newer)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		u := r.attach(r.spec(older, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(older, schedulerv1.Build_STATE_FAILED)
		fence := r.built(opened(3, "bbb"))
		r.pass(fence)
		r.shown("bbb", "forge/test", schedulerv1.Build_STATE_PASSED)
		if b := r.reporter.shows("aaa", "forge/test").GetBuild(); b.GetId() != newer || b.GetState() != schedulerv1.Build_STATE_PASSED {
			t.Errorf("shown %v", b)
		}
	})
}

func TestDecisionSurvivesARestart(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.start()
		e := opened(1, "aaa")
		id := r.built(e)
		r.stop()
		r.start()
		if d := r.send(e); d.GetReason() != eventv1.Reason_REASON_BUILT || d.GetBuildIds()[0] != id {
			t.Errorf("%v", d)
		}
	})
}

// of has an event come from another repository.
func of(repositoryID int64, e *eventv1.Event) *eventv1.Event {
	e.Repository = &eventv1.Repository{Id: repositoryID, Owner: "Acme", Name: fmt.Sprintf("shop-%d", repositoryID)}
	pull(e).Head.Repository = e.GetRepository()
	return e
}

func TestRepositoryWithFewestPlacesGoesFirst(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 3
		r.start()
		greedy := make([]string, 5)
		for n := range greedy {
			greedy[n] = r.built(of(1, opened(int32(n)+1, fmt.Sprintf("a%d", n))))
		}
		r.spec(greedy[2], 1)
		late, later := r.built(of(2, opened(1, "b1"))), r.built(of(3, opened(1, "c1")))
		r.pass(greedy[0])
		r.spec(late, 1)
		r.pass(greedy[1])
		r.spec(later, 1)
		if b := r.build(greedy[3]); b.GetState() != schedulerv1.Build_STATE_QUEUED {
			t.Errorf("the repository with a place is served before those without: %v", b.GetState())
		}
		r.pass(late)
		r.spec(greedy[3], 1)
	})
}

func TestDeploysGoBeforeMergeGroupsBeforePullRequests(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		first := r.built(opened(1, "a1"))
		r.spec(first, 1)
		test, deploy := r.built(opened(2, "a2")), r.built(mergedInto(3, "main", "m3"))
		group := &store.Build{Build: &schedulerv1.Build{
			Id: "group", Repository: repository(), Action: schedulerv1.Build_ACTION_TEST, Sha: "g4", Ref: "refs/heads/gh-readonly-queue/main/pr-4-g4",
			Context: "forge/test", State: schedulerv1.Build_STATE_QUEUED,
		}, Config: usual(), Due: noon}
		if err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error { return t.AddBuild(ctx, group) }); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{first, deploy, "group", test} {
			r.pass(id)
		}
	})
}

// The container of a start that was not answered may be there: its place stays
// taken.
func TestStartThatWasNotAnsweredKeepsItsPlace(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.engine.startErr = errors.New("connection refused")
		r.start()
		id := r.built(opened(1, "a1"))
		kittest.Eventually(t, patience, func() error {
			if b := r.build(id); b.GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
				return fmt.Errorf("%v", b)
			}
			return nil
		})
		next := r.built(opened(2, "a2"))
		if claimed, err := r.service.attempts.ClaimStarts(t.Context(), 1); err != nil || len(claimed) != 0 {
			t.Errorf("claimed %v, %v", claimed, err)
		}
		r.engine.set(func(e *memoryEngine) { e.startErr = nil })
		r.clock.Advance(time.Minute)
		r.wake()
		r.pass(id)
		r.pass(next)
	})
}

func TestReplicasShareOneQueue(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const builds = 24
		deps := r.deps
		deps.DB = r.open()
		other, err := New(deps)
		if err != nil {
			t.Fatal(err)
		}
		ctx, halt := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- other.Run(ctx) }()
		defer func() {
			halt()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		for n := range int32(builds) {
			r.built(opened(n+1, fmt.Sprintf("a%d", n)))
		}
		ended := map[string]bool{}
		for len(ended) < builds {
			kittest.Eventually(t, patience, func() error {
				other.attempts.Starts.Wake()
				if live := r.engine.attempts(); len(live) > r.deps.Capacity {
					t.Fatalf("%d containers at once, capacity %d: %v", len(live), r.deps.Capacity, live)
				} else if len(live) > 0 {
					return nil
				}
				return errors.New("nothing runs")
			})
			for _, attempt := range r.engine.attempts() {
				id, number, _ := store.KnownAttempt(attempt)
				if number != 1 || ended[id] {
					t.Fatalf("%s was started a second time", attempt)
				}
				r.pass(id)
				ended[id] = true
			}
			kittest.Eventually(t, patience, func() error {
				for _, attempt := range r.engine.attempts() {
					if id, _, _ := store.KnownAttempt(attempt); ended[id] {
						return fmt.Errorf("%s is still there", attempt)
					}
				}
				return nil
			})
		}
	})
}
