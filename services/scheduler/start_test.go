package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
)

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
		var before []attempt.Start
		kittest.Eventually(t, patience, func() (err error) {
			r.clock.Advance(due.Lease)                                   // which may be its own again
			before, err = r.service.attempts.ClaimStarts(t.Context(), 1) // another replica, which dies
			if err == nil && (len(before) != 1 || before[0].Build.GetAttempt() != 1) {
				err = fmt.Errorf("claimed %v", before)
			}
			return err
		})
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
