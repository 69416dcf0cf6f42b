package attempt

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	startRetryFirst = time.Second
	startRetryMost  = time.Minute

	// startDrain is how long a start may go on once the process is to stop: enough for
	// a container whose image is there.
	startDrain = 2 * time.Second
	// startLeast is how long the engine is given at least, though the time of its
	// attempt is over: the container may be there.
	startLeast = 10 * time.Second
	// settleWithin bounds the storing of what became of a call that was broken off.
	settleWithin = 5 * time.Second

	// AttachWithin is how long a started container may take to say hello.
	AttachWithin = 5 * time.Minute
)

// Start is an attempt to be started.
type Start struct {
	Build  *store.Build
	Token  string
	queued time.Time           // since when it waited; zero where it was begun before
	waited []*schedulerv1.Wait // what for, the last time
	asked  time.Time           // since when the engine is asked
	waits  *waits
}

// starting is how an attempt gets its container from the engine.
type starting struct{ *Service }

// ClaimStarts takes builds from the queue. Attempt and token are stored before
// the engine hears of them.
func (s *Service) ClaimStarts(ctx context.Context, limit int) ([]Start, error) {
	var claimed []Start
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		claimed = nil
		startable, err := t.Startable(ctx, s.Capacity, limit)
		if err != nil {
			return err
		}
		for _, b := range startable {
			one, err := starting{s}.claimStart(ctx, t, b)
			if err != nil {
				return fmt.Errorf("claim build %s: %w", b.GetId(), err)
			}
			claimed = append(claimed, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, c := range claimed {
		queueSpan(ctx, s, c.Build, c.queued, c.waited)
		if !c.queued.IsZero() {
			s.metrics.waited(ctx, c.Build, c.queued, s.now())
			s.Estimates.settle(ctx, c.Build)
		}
	}
	return claimed, nil
}

func (s starting) claimStart(ctx context.Context, t *store.Tx, b *store.Build) (Start, error) {
	claimed := Start{Build: b, asked: t.Now, waits: &waits{now: s.now}}
	fresh := b.GetAttempt() == 0
	if !fresh {
		last, err := t.Attempt(ctx, b.GetId(), b.GetAttempt())
		if err != nil {
			return Start{}, err
		}
		switch fresh = last.Ended; {
		case fresh:
		case b.GetState() == schedulerv1.Build_STATE_STARTING && !last.Asked.IsZero(): // whoever asked is gone
			claimed.asked = last.Asked
		default: // the engine had given an answer
			if err := last.AskAnew(ctx, t); err != nil {
				return Start{}, err
			}
		}
	}
	if fresh {
		claimed.queued = b.Due
		b.Attempt++
		if err := t.AddAttempt(ctx, b.GetId(), b.GetAttempt()); err != nil {
			return Start{}, err
		}
	}
	secret := make([]byte, 32)
	if _, err := io.ReadFull(s.random, secret); err != nil {
		return Start{}, fmt.Errorf("random bits for a token: %w", err)
	}
	claimed.Token = hex.EncodeToString(secret)
	if err := t.AddToken(ctx, TokenHash(claimed.Token), b.GetId(), b.GetAttempt()); err != nil {
		return Start{}, err
	}
	b.State, b.Reason, b.Message = schedulerv1.Build_STATE_STARTING, schedulerv1.Build_REASON_UNSPECIFIED, ""
	b.RetryTime = nil
	b.Due = t.Now.Add(due.Lease)
	b.PlaceTime = timestamppb.New(claimed.asked)
	err := t.SaveBuild(ctx, b)
	claimed.waited = b.WaitsUntil(t.Now)
	return claimed, err
}

// TokenHash is how a token is stored. It has 256 random bits: a plain hash is enough.
func TokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Start asks the engine for the container of an attempt, and has its source prepared
// meanwhile.
func (s *Service) Start(ctx context.Context, c Start) {
	b := c.Build
	if !b.IsRemote() { // whose difference is read once it is needed
		select {
		case s.preparing.soon <- preparationOf(b):
		default: // many are: the runner waits a little longer
		}
	}
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, b.Traceparent), "start container")
	defer span.End()
	span.SetAttributes(attributesOf(b)...)
	span.SetAttributes(attribute.String("forge.engine", s.engine.Name()), attribute.String("forge.attempt", store.AttemptName(b.GetId(), b.GetAttempt())))

	started, err := starting{s}.askEngine(ctx, c)
	c.waits.end(span)
	if started.machine != "" {
		span.SetAttributes(attribute.String("host.name", started.machine))
	}
	switch {
	case is[brokenOffError](err):
		s.log.InfoContext(ctx, "start broken off", "build", b.GetId(), "attempt", b.GetAttempt(), "because", err)
	case err != nil && !is[environment.ContainedError](err):
		span.SetStatus(otelcodes.Error, err.Error())
		s.log.WarnContext(ctx, "container not started", "build", b.GetId(), "attempt", b.GetAttempt(), "error", err)
	}
	ctx, cancel := settling(ctx)
	defer cancel()
	if err := (starting{s}).settleStart(ctx, b, started, err); err != nil {
		s.log.WarnContext(ctx, "start not settled; tried again when its lease is over", "build", b.GetId(), "error", err)
	}
}

// settling is for storing what became of work whose context may have ended.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
}

// started is what is known of a container that the engine was asked for.
type started struct {
	said    string // last, of what it waits for
	machine string
}

// brokenOffError is why a call of the engine was ended before it had an answer: a
// cause of package due. Whatever the engine said of that does not count.
type brokenOffError struct{ cause error }

func (b brokenOffError) Error() string { return b.cause.Error() }

func (b brokenOffError) Unwrap() error { return b.cause }

// askEngine calls Start, unless a deploy has become needless.
func (s starting) askEngine(ctx context.Context, c Start) (started, error) {
	if err := s.environments.StillWanted(ctx, c.Build); err != nil {
		return started{}, brokenOff(ctx, err)
	}
	if err := awaitMerge(ctx, s.sources, c); err != nil {
		return started{}, brokenOff(ctx, err)
	}
	// What else goes wrong with them the runner hears, which asks again.
	if _, _, err := s.secrets.SecretsFor(ctx, c.Build); is[secrets.UnavailableError](err) {
		return started{}, brokenOff(ctx, err)
	}
	if _, _, err := s.inputs.For(ctx, c.Build); is[secrets.UnavailableError](err) {
		return started{}, brokenOff(ctx, err)
	}
	images := imageSteps(s)
	if err := images.canBuildImages(ctx, c.Build); err != nil {
		return started{}, brokenOff(ctx, err)
	}
	call, cancel := context.WithTimeout(ctx, startWithin(s.Runners.StartTimeout, s.now().Sub(c.asked)))
	defer cancel()
	var mu sync.Mutex
	var got started
	spec := s.spec(ctx, c)
	if err := images.fromNeeds(ctx, c.Build, &spec); err != nil {
		return started{}, brokenOff(ctx, err)
	}
	spec.Placed = func(machine string) {
		mu.Lock()
		defer mu.Unlock()
		got.machine = machine
	}
	say := spec.Say
	spec.Say = func(line string) {
		mu.Lock()
		got.said = line
		mu.Unlock()
		say(line)
	}
	spec.Waits = func(what engine.Wait, text string) { c.waits.note(reasonOf(what), text) }
	begin := s.now()
	err := s.engine.Start(call, spec)
	mu.Lock()
	defer mu.Unlock()
	if err = brokenOff(ctx, err); err != nil && !is[brokenOffError](err) && call.Err() != nil {
		err = startTimedOut(s.Runners.StartTimeout, err, got.said)
	}
	s.metrics.started(ctx, s.engine.Name(), s.now().Sub(begin), err)
	return got, err
}

// startWithin is how much is left of the time for a start, of which some is over.
func startWithin(timeout, over time.Duration) time.Duration {
	return max(timeout-over, min(startLeast, timeout))
}

// brokenOff is the error of a call, or why it was broken off.
func brokenOff(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return brokenOffError{context.Cause(ctx)}
}

// timedOutError is that a container was not started in time.
type timedOutError struct{ error }

// startTimedOut says so, and what the engine waited for, as far as that is known.
func startTimedOut(within time.Duration, err error, said string) error {
	text := fmt.Sprintf("not started within %v", within)
	why := strings.TrimPrefix(said, "waits: ")
	if wait, ok := errors.AsType[*engine.WaitError](err); ok && wait.Reason != "" {
		why = wait.Reason
	}
	if why != "" {
		text += ": " + why
	}
	return timedOutError{fault.New(fault.Invalid, text)}
}

func (t timedOutError) Unwrap() error { return t.error }

// renewStart keeps the build while the engine takes its time. due.ErrOver: it does
// not wait for its container any more.
func (s starting) renewStart(ctx context.Context, c Start) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, c.Build.GetId())
		switch {
		case err != nil:
			return err
		case b.Due.IsZero() || b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetAttempt() != c.Build.GetAttempt():
			return due.ErrOver
		}
		b.Due = t.Now.Add(due.Lease)
		b.Reason, b.Message = c.waits.why()
		return t.SaveBuild(ctx, b)
	})
}

// settleStart stores what the engine answered. The runner may have been faster,
// and so may a cancellation: then only what is left behind is cleared away. A start
// that this process breaks off, since it stops, is anybody's at once.
func (s starting) settleStart(ctx context.Context, claimed *store.Build, got started, answer error) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if got.machine != "" {
			of := &store.Attempt{BuildID: claimed.GetId(), Number: claimed.GetAttempt()}
			if err := of.SetMachine(ctx, t, got.machine); err != nil {
				return err
			}
		}
		if answer == nil {
			if placed, err := t.NotePlaced(ctx, claimed.GetId(), claimed.GetAttempt(), t.Now.Add(AttachWithin)); placed || err != nil {
				return err
			}
		}
		b, a, err := store.BuildOf(ctx, t, claimed.GetId(), claimed.GetAttempt())
		switch {
		case err != nil:
			return err
		case a.IsKept(t.Now): // its commands were faster than the engine's answer
			return nil
		case a.Ended:
			return t.StopSoon(ctx, a.BuildID, a.Number)
		case b.GetState() != schedulerv1.Build_STATE_STARTING || answer == nil:
			return nil
		case is[brokenOffError](answer):
			if b.Due.IsZero() || !errors.Is(answer, due.ErrStopped) {
				return nil // it is somebody else's
			}
			b.Due = t.Now
		case fault.Is(answer, fault.Invalid):
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, answer.Error())
		case is[conflictError](answer):
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_MERGE_CONFLICT, answer.Error())
		case is[*engine.DelayError](answer):
			return s.delayStart(ctx, t, b, answer)
		case is[secrets.UnavailableError](answer):
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SECRET_UNAVAILABLE, answer.Error())
		case is[environment.ContainedError](answer) && b.IsJob(): // and so is the rest of its deploy
			whole, err := t.Build(ctx, b.GetPartOf())
			if err != nil {
				return err
			}
			return s.Cancel(ctx, t, whole, schedulerv1.Build_REASON_ALREADY_CONTAINED, answer.Error())
		case is[environment.ContainedError](answer):
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_ALREADY_CONTAINED, answer.Error())
		default:
			// The container may be there all the same; the attempt stays the one
			// that counts, and is asked for again.
			b.Tries++
			b.State = schedulerv1.Build_STATE_QUEUED
			b.Reason, b.Message = unstarted(answer)
			b.Due = t.Now.Add(due.Backoff(b.Tries, startRetryFirst, startRetryMost, rand.Float64))
			b.RetryTime = timestamppb.New(b.Due)
		}
		return t.SaveBuild(ctx, b)
	})
}

// delayStart has the engine asked again after a pause, unless that has lasted too
// long.
func (s starting) delayStart(ctx context.Context, t *store.Tx, b *store.Build, answer error) error {
	delayed, _ := errors.AsType[*engine.DelayError](answer)
	within := cmp.Or(delayed.Within, s.timeout(b))
	if time.Duration(b.Tries)*delayed.Pause >= within {
		message := fmt.Sprintf("%s; it was still so after %v", answer, within)
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, message)
	}
	b.Tries++
	b.State, b.Reason, b.Message = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_RETRY, answer.Error()
	b.Due = t.Now.Add(delayed.Pause)
	b.RetryTime = timestamppb.New(b.Due)
	return t.SaveBuild(ctx, b)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
