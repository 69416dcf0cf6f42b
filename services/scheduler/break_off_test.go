package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// brokenOffWithin is how long a Start goes on at most that is not wanted any more, on a machine that is busy.
const brokenOffWithin = time.Minute

// slowEngine makes what it is asked for at once and then waits, for ten minutes or
// until there is room.
type slowEngine struct {
	*memoryEngine
	room chan struct{}

	mu     sync.Mutex
	made   []string
	starts int      // that wait
	story  []string // of Starts that returned and of Stops
}

func (e *slowEngine) Start(ctx context.Context, spec engine.Spec) error {
	e.mu.Lock()
	if !strings.Contains(strings.Join(e.made, " "), spec.Attempt) {
		e.made = append(e.made, spec.Attempt)
	}
	e.starts++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.starts--
		e.story = append(e.story, "returned "+spec.Attempt)
	}()
	waiting := engine.NewWaiting(spec, nil)
	waiting.For("no machine has 4 CPUs free")
	limit := time.NewTimer(10 * time.Minute)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return waiting.Err(ctx.Err())
	case <-limit.C:
		return errors.New("nobody ended it")
	case <-e.room:
		return e.memoryEngine.Start(ctx, spec)
	}
}

func (e *slowEngine) Stop(ctx context.Context, attempt string) error {
	e.mu.Lock()
	e.story = append(e.story, "stopped "+attempt)
	e.mu.Unlock()
	return e.memoryEngine.Stop(ctx, attempt)
}

func (e *slowEngine) awaitStarts(t *testing.T, n int) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.starts != n {
			return fmt.Errorf("%d Starts wait, want %d", e.starts, n)
		}
		return nil
	})
}

// slow has a scheduler work with such an engine, and keeps its log.
func (e *memoryEngine) slow(deps *Deps) (*slowEngine, *logBuffer) {
	slow, log := &slowEngine{memoryEngine: e, room: make(chan struct{})}, &logBuffer{}
	deps.Engine, deps.Log = slow, slog.New(slog.NewTextHandler(log, nil))
	return slow, log
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// clean: whatever is broken off is nobody's error.
func (l *logBuffer) clean(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, bad := range []string{"context canceled", "deadline exceeded", "does not answer", "WARN", "ERROR"} {
		if strings.Contains(l.text.String(), bad) {
			t.Errorf("the log has %q:\n%s", bad, l.text.String())
		}
	}
}

func TestStartOfWhatIsCancelledOrSupersededIsBrokenOff(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		t.Parallel()
		e, log := r.engine.slow(&r.deps)
		r.start()
		cancelled, superseded := r.built(opened(2, "bbb")), r.built(opened(1, "a1"))
		e.awaitStarts(t, 2)
		began := time.Now()
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: cancelled}); err != nil {
			t.Fatal(err)
		}
		newer := r.built(synchronize("a1", "a2", noon.Add(time.Minute)))
		r.becomes(cancelled, schedulerv1.Build_STATE_CANCELLED)
		r.becomes(superseded, schedulerv1.Build_STATE_CANCELLED)
		// A slot is free at once, somebody to start in it once the old Starts have returned.
		kittest.Eventually(t, patience, func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if !strings.Contains(strings.Join(e.made, " "), store.AttemptName(newer, 1)) {
				return errors.New("the newer build is not being started")
			}
			return nil
		})
		if took := time.Since(began); took > brokenOffWithin {
			t.Errorf("broken off after %v", took)
		}
		e.awaitStarts(t, 1)
		for _, id := range []string{cancelled, superseded} { // Stop came after Start
			kittest.Eventually(t, patience, func() error {
				e.mu.Lock()
				defer e.mu.Unlock()
				_, after, returned := strings.Cut(strings.Join(e.story, ", "), "returned "+store.AttemptName(id, 1))
				if !returned || !strings.Contains(after, "stopped "+store.AttemptName(id, 1)) {
					return fmt.Errorf("%s: %v", id, e.story)
				}
				return nil
			})
		}
		close(e.room)
		r.pass(newer)
		r.stop()
		log.clean(t)
	})
}

func TestStartThatTheProcessBreaksOffIsGoneOnWith(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		t.Parallel()
		e, log := r.engine.slow(&r.deps)
		r.start()
		id := r.built(opened(1, "aaa"))
		e.awaitStarts(t, 1)
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > brokenOffWithin {
			t.Errorf("stopped after %v", took)
		}
		log.clean(t)
		r.start() // the clock stands still: the lease was given back
		e.awaitStarts(t, 1)
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetMessage() != "" {
			t.Errorf("%v", b)
		}
		close(e.room)
		r.pass(id)
		if len(e.made) != 1 {
			t.Errorf("made %v", e.made)
		}
	})
}

func TestOtherReplicaGoesOnWithAStart(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		t.Parallel()
		e, log := r.engine.slow(&r.deps)
		db := r.open()
		defer db.Close()
		first := r.deps
		first.DB = db
		replica, err := New(first)
		if err != nil {
			t.Fatal(err)
		}
		ctx, sigterm := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- replica.Run(ctx) }()
		answer, err := replica.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: opened(1, "aaa")})
		if err != nil {
			t.Fatal(err)
		}
		id := answer.GetDecision().GetBuildIds()[0]
		e.awaitStarts(t, 1)
		r.start()
		began := time.Now()
		sigterm()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		e.awaitStarts(t, 1)
		if took := time.Since(began); took > brokenOffWithin {
			t.Errorf("the other goes on after %v", took)
		}
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetAttempt() != 1 {
			t.Errorf("%v", b)
		}
		close(e.room)
		r.pass(id)
		if len(e.made) != 1 {
			t.Errorf("made %v", e.made)
		}
		log.clean(t)
	})
}

func TestStartThatTakesTooLongSaysWhatItWaitedFor(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.stop()
		e, _ := r.engine.slow(&r.deps)
		r.deps.Runners.StartTimeout = 50 * time.Millisecond
		r.start()
		id := r.built(opened(1, "aaa"))
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_START_FAILED || b.GetMessage() != "not started within 50ms: no machine has 4 CPUs free" {
			t.Errorf("%v", b)
		}
		kittest.Eventually(t, patience, func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if last := e.story[len(e.story)-1]; last != "stopped "+store.AttemptName(id, 1) {
				return fmt.Errorf("%v", e.story)
			}
			return nil
		})
	})
}

func TestTimeOfAStartGoesOnWithWhoeverIsGoneAndBeginsAnewAfterAnAnswer(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) { e.startErr = errors.New("connection refused") })
		id := r.built(opened(1, "aaa"))
		kittest.Eventually(t, patience, func() error {
			if b := r.build(id); b.GetReason() != schedulerv1.Build_REASON_ENGINE_UNAVAILABLE {
				return fmt.Errorf("%v", b)
			}
			return nil
		})
		r.stop()
		db := r.open()
		defer db.Close()
		r.deps.DB = db
		service, err := New(r.deps)
		if err != nil {
			t.Fatal(err)
		}
		claim := func() time.Duration {
			t.Helper()
			claimed, err := service.attempts.ClaimStarts(t.Context(), 1)
			if err != nil || len(claimed) != 1 {
				t.Fatalf("claimed %v, %v", claimed, err)
			}
			a, err := store.ReadAttempt(t.Context(), db.Read(), id, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			return a.Asked.Sub(noon)
		}
		r.clock.Advance(20 * time.Minute)
		if got := claim(); got != 20*time.Minute {
			t.Errorf("after an answer: asked since %v", got)
		}
		r.clock.Advance(10 * time.Minute) // whoever asked is gone
		if got := claim(); got != 20*time.Minute {
			t.Errorf("asked again: asked since %v", got)
		}
	})
}

// What the engine waits for is shown while it does, and GitHub is not told of each word.
func TestWhatTheEngineWaitsForIsShown(t *testing.T) {
	r := sqliteRig(t)
	slow, _ := r.engine.slow(&r.deps)
	r.start()
	id := r.built(opened(1, "aaa"))
	slow.awaitStarts(t, 1)
	kittest.Eventually(t, patience, func() error {
		b := r.build(id)
		if b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetReason() != schedulerv1.Build_REASON_MACHINE || b.GetMessage() != "no machine has 4 CPUs free" {
			return fmt.Errorf("%v", b)
		}
		return nil
	})
	close(slow.room)
	r.pass(id)
	if b := r.build(id); b.GetReason() != schedulerv1.Build_REASON_UNSPECIFIED || b.GetMessage() != "" {
		t.Errorf("what is over is shown: %v", b)
	}
	r.reporter.mu.Lock()
	defer r.reporter.mu.Unlock()
	for _, told := range r.reporter.reports {
		if strings.Contains(told.GetBuild().GetMessage(), "CPUs") {
			t.Errorf("GitHub is told: %v", told)
		}
	}
}
