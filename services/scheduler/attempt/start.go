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
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"

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

	// AttachWithin is how long a started container may take to say hello.
	AttachWithin = 5 * time.Minute
)

// Start is an attempt to be started.
type Start struct {
	Build  *store.Build
	Token  string
	queued time.Time // since when it waited; zero where it was begun before
}

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
			s.span(ctx, c.Build.Traceparent, "wait in queue", c.queued, s.now())
			s.metrics.waited(ctx, c.Build, c.queued, s.now())
		}
	}
	return claimed, nil
}

func (s *Service) claimStart(ctx context.Context, t *store.Tx, b *store.Build) (Start, error) {
	claimed := Start{Build: b}
	fresh := b.GetAttempt() == 0
	if !fresh {
		last, err := t.Attempt(ctx, b.GetId(), b.GetAttempt())
		if err != nil {
			return Start{}, err
		}
		fresh = last.Ended
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
	b.Due = t.Now.Add(due.Lease)
	return claimed, t.SaveBuild(ctx, b)
}

// TokenHash is how a token is stored. It has 256 random bits: a plain hash is enough.
func TokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Start asks the engine for the container of an attempt.
func (s *Service) Start(ctx context.Context, c Start) {
	b := c.Build
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, b.Traceparent), "start container")
	defer span.End()
	span.SetAttributes(attribute.String("forge.engine", s.engine.Name()), attribute.String("forge.attempt", store.AttemptName(b.GetId(), b.GetAttempt())))

	err := s.askEngine(ctx, c)
	if err != nil && !is[environment.ContainedError](err) {
		span.SetStatus(otelcodes.Error, err.Error())
		s.log.WarnContext(ctx, "container not started", "build", b.GetId(), "attempt", b.GetAttempt(), "error", err)
	}
	if err := s.settleStart(ctx, b, err); err != nil {
		s.log.WarnContext(ctx, "start not settled; tried again when its lease is over", "build", b.GetId(), "error", err)
	}
}

// askEngine calls Start, unless a deploy has become needless.
func (s *Service) askEngine(ctx context.Context, c Start) error {
	if err := s.environments.StillWanted(ctx, c.Build); err != nil {
		return err
	}
	// What else goes wrong with them the runner hears, which asks again.
	if _, _, err := s.secrets.SecretsFor(ctx, c.Build); is[secrets.UnavailableError](err) {
		return err
	}
	begin := s.now()
	err := s.engine.Start(ctx, s.spec(ctx, c))
	s.metrics.started(ctx, s.engine.Name(), s.now().Sub(begin), err)
	return err
}

// renewStart keeps the build while the engine takes its time.
func (s *Service) renewStart(ctx context.Context, c Start) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, c.Build.GetId())
		if err != nil || b.Due.IsZero() || b.GetState() != schedulerv1.Build_STATE_STARTING || b.GetAttempt() != c.Build.GetAttempt() {
			return err
		}
		b.Due = t.Now.Add(due.Lease)
		return t.SaveBuild(ctx, b)
	})
}

// settleStart stores what the engine answered. The runner may have been faster,
// and so may a cancellation: then only what is left behind is cleared away.
func (s *Service) settleStart(ctx context.Context, claimed *store.Build, answer error) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if answer == nil {
			if placed, err := t.NotePlaced(ctx, claimed.GetId(), claimed.GetAttempt(), t.Now.Add(AttachWithin)); placed || err != nil {
				return err
			}
		}
		b, err := t.Build(ctx, claimed.GetId())
		if err != nil {
			return err
		}
		a, err := t.Attempt(ctx, claimed.GetId(), claimed.GetAttempt())
		switch {
		case err != nil:
			return err
		case a.Ended:
			return t.StopSoon(ctx, a.BuildID, a.Number)
		case b.GetState() != schedulerv1.Build_STATE_STARTING || answer == nil:
			return nil
		case fault.Is(answer, fault.Invalid):
			return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, answer.Error())
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
			b.State, b.Reason = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_ENGINE_UNAVAILABLE
			b.Message = "the engine does not answer: " + answer.Error()
			if is[environment.CannotCompareError](answer) {
				b.Reason, b.Message = schedulerv1.Build_REASON_UNSPECIFIED, answer.Error()
			}
			b.Due = t.Now.Add(due.Backoff(b.Tries, startRetryFirst, startRetryMost, rand.Float64))
		}
		return t.SaveBuild(ctx, b)
	})
}

// delayStart has the engine asked again after a pause, unless that has lasted too
// long.
func (s *Service) delayStart(ctx context.Context, t *store.Tx, b *store.Build, answer error) error {
	delayed, _ := errors.AsType[*engine.DelayError](answer)
	within := cmp.Or(delayed.Within, s.timeout(b))
	if time.Duration(b.Tries)*delayed.Pause >= within {
		message := fmt.Sprintf("%s; it was still so after %v", answer, within)
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED, message)
	}
	b.Tries++
	b.State, b.Reason, b.Message = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, answer.Error()
	b.Due = t.Now.Add(delayed.Pause)
	return t.SaveBuild(ctx, b)
}

// stopTimeout bounds one Stop of the engine.
const stopTimeout = 30 * time.Second

// Stop removes the container of an attempt that has ended, for as long as it
// takes.
func (s *Service) Stop(ctx context.Context, c store.Stop) {
	call, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := s.engine.Stop(call, store.AttemptName(c.BuildID, c.Attempt))
	var again time.Time
	if err != nil {
		wait := due.Backoff(c.Tries+1, startRetryFirst, startRetryMost, rand.Float64)
		again = s.now().Add(wait)
		s.log.WarnContext(ctx, "container not stopped", "build", c.BuildID, "attempt", c.Attempt, "retry_in", wait, "error", err)
	}
	if err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return s.settleStop(ctx, t, c, again) }); err != nil {
		s.log.WarnContext(ctx, "stop not settled; done again when its lease is over", "build", c.BuildID, "error", err)
	}
}

// settleStop stores what the engine answered. With its container gone a deploy
// that has ended leaves its environment.
func (s *Service) settleStop(ctx context.Context, t *store.Tx, c store.Stop, again time.Time) error {
	whole := store.WholeID(c.BuildID)
	if whole != c.BuildID { // of two containers that go at once, the later sees that both are gone
		if _, err := t.Build(ctx, whole); err != nil {
			return err
		}
	}
	if err := c.Settle(ctx, t, again); err != nil || !again.IsZero() {
		return err
	}
	return s.environments.Leave(ctx, t, whole)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
