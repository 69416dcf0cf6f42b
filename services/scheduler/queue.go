package scheduler

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

const (
	startRetryFirst = time.Second
	startRetryMost  = time.Minute

	// attachWithin is how long a started container may take to say hello.
	attachWithin = 5 * time.Minute
)

// start is an attempt to be started.
type start struct {
	build  *build
	token  string
	queued time.Time // since when it waited; zero where it was begun before
}

// claimStarts takes builds from the queue. Attempt and token are stored before
// the engine hears of them.
func (s *Service) claimStarts(ctx context.Context, limit int) ([]start, error) {
	var claimed []start
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		claimed = nil
		startable, err := t.startable(ctx, s.Capacity, limit)
		if err != nil {
			return err
		}
		for _, b := range startable {
			one, err := s.claimStart(ctx, t, b)
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
		if !c.queued.IsZero() {
			s.span(ctx, c.build.traceparent, "wait in queue", c.queued, s.Now())
		}
	}
	return claimed, nil
}

func (s *Service) claimStart(ctx context.Context, t *tx, b *build) (start, error) {
	claimed := start{build: b}
	fresh := b.GetAttempt() == 0
	if !fresh {
		last, err := t.attempt(ctx, b.GetId(), b.GetAttempt())
		if err != nil {
			return start{}, err
		}
		fresh = last.ended
	}
	if fresh {
		claimed.queued = b.due
		b.Attempt++
		if err := t.addAttempt(ctx, b.GetId(), b.GetAttempt()); err != nil {
			return start{}, err
		}
	}
	secret := make([]byte, 32)
	if _, err := io.ReadFull(s.Random, secret); err != nil {
		return start{}, fmt.Errorf("random bits for a token: %w", err)
	}
	claimed.token = hex.EncodeToString(secret)
	if err := t.addToken(ctx, tokenHash(claimed.token), b.GetId(), b.GetAttempt()); err != nil {
		return start{}, err
	}
	b.State, b.Reason, b.Message = schedulerv1.Build_STATE_STARTING, schedulerv1.Build_REASON_UNSPECIFIED, ""
	b.due = t.now.Add(due.Lease)
	return claimed, t.saveBuild(ctx, b)
}

// tokenHash is how a token is stored. It has 256 random bits: a plain hash is enough.
func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// start asks the engine for the container of an attempt.
func (s *Service) start(ctx context.Context, c start) {
	b := c.build
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, b.traceparent), "start container")
	defer span.End()
	span.SetAttributes(attribute.String("forge.engine", s.Engine.Name()), attribute.String("forge.attempt", attemptName(b.GetId(), b.GetAttempt())))

	err := s.askEngine(ctx, c)
	if err != nil && !is[contained](err) {
		span.SetStatus(otelcodes.Error, err.Error())
		s.Log.WarnContext(ctx, "container not started", "build", b.GetId(), "attempt", b.GetAttempt(), "error", err)
	}
	if err := s.settleStart(ctx, b, err); err != nil {
		s.Log.WarnContext(ctx, "start not settled; tried again when its lease is over", "build", b.GetId(), "error", err)
	}
}

// askEngine calls Start, unless a deploy has become needless.
func (s *Service) askEngine(ctx context.Context, c start) error {
	if err := s.startWanted(ctx, c.build); err != nil {
		return err
	}
	// What else goes wrong with them the runner hears, which asks again.
	if _, _, err := s.handed(ctx, c.build); is[noSecretsError](err) {
		return err
	}
	return s.Engine.Start(ctx, s.spec(ctx, c))
}

// renewStart keeps the build while the engine takes its time.
func (s *Service) renewStart(ctx context.Context, c start) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		b, err := t.build(ctx, c.build.GetId())
		if err != nil || b.due.IsZero() || b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetAttempt() != c.build.GetAttempt() {
			return err
		}
		b.due = t.now.Add(due.Lease)
		return t.saveBuild(ctx, b)
	})
}

// settleStart stores what the engine answered. The runner may have been faster,
// and so may a cancellation: then only what is left behind is cleared away.
func (s *Service) settleStart(ctx context.Context, claimed *build, answer error) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		if answer == nil {
			if placed, err := t.notePlaced(ctx, claimed.GetId(), claimed.GetAttempt()); placed || err != nil {
				return err
			}
		}
		b, err := t.build(ctx, claimed.GetId())
		if err != nil {
			return err
		}
		a, err := t.attempt(ctx, claimed.GetId(), claimed.GetAttempt())
		switch {
		case err != nil:
			return err
		case a.ended:
			return t.stopSoon(ctx, a.buildID, a.number)
		case b.GetState() != schedulerv1.Build_STATE_STARTING || answer == nil:
			return nil
		case fault.Is(answer, fault.Invalid):
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, answer.Error())
		case is[*engine.DelayError](answer):
			return s.delayStart(ctx, t, b, answer)
		case is[noSecretsError](answer):
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SECRET_UNAVAILABLE, answer.Error())
		case is[contained](answer):
			return s.finish(ctx, t, b, schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_ALREADY_CONTAINED, answer.Error())
		default:
			// The container may be there all the same; the attempt stays the one
			// that counts, and is asked for again.
			b.tries++
			b.State, b.Reason = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_ENGINE_UNAVAILABLE
			b.Message = "the engine does not answer: " + answer.Error()
			if is[unsure](answer) {
				b.Reason, b.Message = schedulerv1.Build_REASON_UNSPECIFIED, answer.Error()
			}
			b.due = t.now.Add(due.Backoff(b.tries, startRetryFirst, startRetryMost, rand.Float64))
		}
		return t.saveBuild(ctx, b)
	})
}

// delayStart has the engine asked again after a pause, unless that has lasted too
// long.
func (s *Service) delayStart(ctx context.Context, t *tx, b *build, answer error) error {
	delayed, _ := errors.AsType[*engine.DelayError](answer)
	within := cmp.Or(delayed.Within, s.timeout(b))
	if time.Duration(b.tries)*delayed.Pause >= within {
		message := fmt.Sprintf("%s; it was still so after %v", answer, within)
		return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, message)
	}
	b.tries++
	b.State, b.Reason, b.Message = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, answer.Error()
	b.due = t.now.Add(delayed.Pause)
	return t.saveBuild(ctx, b)
}

// stopTimeout bounds one Stop of the engine.
const stopTimeout = 30 * time.Second

// stop removes the container of an attempt that has ended, for as long as it
// takes.
func (s *Service) stop(ctx context.Context, c stop) {
	call, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := s.Engine.Stop(call, attemptName(c.buildID, c.attempt))
	var again time.Time
	if err != nil {
		wait := due.Backoff(c.tries+1, startRetryFirst, startRetryMost, rand.Float64)
		again = s.Now().Add(wait)
		s.Log.WarnContext(ctx, "container not stopped", "build", c.buildID, "attempt", c.attempt, "retry_in", wait, "error", err)
	}
	if err := s.write(ctx, func(ctx context.Context, t *tx) error { return s.settleStop(ctx, t, c, again) }); err != nil {
		s.Log.WarnContext(ctx, "stop not settled; done again when its lease is over", "build", c.buildID, "error", err)
	}
}

// settleStop stores what the engine answered. With its container gone a deploy
// that has ended leaves its environment.
func (s *Service) settleStop(ctx context.Context, t *tx, c stop, again time.Time) error {
	if err := t.stopAgain(ctx, c, again); err != nil || !again.IsZero() {
		return err
	}
	return s.leaveEnvironment(ctx, t, c.buildID)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
