package reporter

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// GitHub itself ends a call after 10 s:
	// https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api#timeouts
	attemptTimeout = 12 * time.Second
	finishTimeout  = 3 * time.Second
	leaseDuration  = attemptTimeout + finishTimeout + 5*time.Second
)

// leaseUntil is the end of a lease that begins now, as the database gives it back.
func leaseUntil(now time.Time) time.Time { return sqldb.Time(sqldb.Micros(now.Add(leaseDuration))) }

// publish makes one attempt to tell GitHub a target, and stores how it ended.
func (s *Service) publish(ctx context.Context, claimed target) {
	defer s.releaseSlot(claimed)
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, claimed.traceparent), "tell GitHub "+cmp.Or(channelOf(claimed.kind).noun, claimed.context),
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("forge.target", claimed.id), attribute.String("forge.sha", claimed.sha)))
	defer span.End()

	calls := s.recorder(claimed.installationID)
	tried, made, err := s.attempt(ctx, calls, claimed)
	stopped := err != nil && ctx.Err() != nil
	var why failure
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		why = classify(err)
		// An attempt may have made something before it failed.
		why.untouched = why.untouched && !claimed.begun
		if why.retryAfter > 0 {
			s.limiter.recordRefusal(claimed.installationID, why.retryAfter)
		}
	}
	// One token that config could not get fails many attempts at once, and tells as
	// much as one of them.
	if noCall := err != nil && len(calls.recorded()) == 0; noCall {
		why.failures = 1
	} else {
		why.failures = s.limiter.recordAttempt(claimed.installationID, why.state == reporterv1.Target_STATE_FAILING)
	}
	change := func(t *target) {
		now := s.deps.Now()
		t.githubID = cmp.Or(made.githubID, t.githubID)
		switch {
		case err == nil:
			if made.note != "" && t.version == tried.version {
				t.pullRequest, t.desired.description = cmp.Or(made.pullRequest, t.pullRequest), made.note
				tried.desired.description = made.note
			}
			t.succeed(tried.version, tried.desired, now)
		case stopped:
			t.interrupt(now)
		default:
			t.fail(tried.version, why, now, s.deps.Random)
		}
	}
	recorded := calls.recorded()
	for i := range recorded {
		recorded[i].version = tried.version
		s.metrics.called(ctx, claimed.kind, recorded[i])
	}
	// A stop ends ctx; how the attempt ended is stored all the same.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	finished, storeErr := s.store.finishAttempt(ending, claimed, recorded, change)
	log := s.deps.Log.With("target", claimed.id, "repository", wording.FullName(claimed.repository),
		"sha", claimed.sha, "context", claimed.context, "version", tried.version)
	switch {
	case storeErr != nil:
		log.ErrorContext(ctx, "storing what GitHub was told failed; GitHub is told again when the lease ends", "error", storeErr)
	case err == nil:
		log.InfoContext(ctx, "GitHub was told", "state", tried.desired.state, "text", tried.desired.description)
	case !stopped:
		logFailure(ctx, log, finished)
	}
	if finished.state == reporterv1.Target_STATE_PENDING || finished.replaces() { // something newer came meanwhile, or was made
		s.wake()
	}
}

func logFailure(ctx context.Context, log *slog.Logger, finished target) {
	if finished.state == reporterv1.Target_STATE_KEPT {
		log.ErrorContext(ctx, "telling GitHub failed; the target is kept for a person", "error", finished.err)
		return
	}
	log.WarnContext(ctx, "telling GitHub failed; it is tried again", "due", finished.due, "error", finished.err)
}

// releaseSlot gives back what a claim has reserved for a target: a worker and a
// call of the installation.
func (s *Service) releaseSlot(t target) {
	awaited := s.limiter.release(t.installationID)
	if s.handoff.freeSlot() || awaited {
		s.wake()
	}
}

// attempt tells GitHub the newest of a target, and returns what that was.
func (s *Service) attempt(ctx context.Context, calls *callRecorder, claimed target) (target, receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	tokens := s.tokens.sourceFor(claimed)
	if _, err := tokens.Token(ctx); err != nil {
		return claimed, receipt{}, err
	}
	newest := claimed
	if !tokens.cached { // a new token can take its time
		var err error
		if newest, err = s.store.get(ctx, claimed.id); err != nil {
			return claimed, receipt{}, err
		}
		newest.begun = claimed.begun // since the claim it says that this attempt has begun
	}
	if newest.desired == newest.published {
		return newest, receipt{}, nil
	}
	client, err := s.client(tokens, calls)
	if err != nil {
		return newest, receipt{}, err
	}
	made, err := channelOf(newest.kind).publish(ctx, client, newest)
	tried := newest
	if refusesText(err) {
		tried, made, err = s.attemptPlainly(ctx, client, newest, made, err)
	}
	if err != nil && tokens.cached && classify(err).state != reporterv1.Target_STATE_FAILING {
		s.tokens.drop(newest.installationID, newest.repository.GetId())
		err = &cachedTokenError{err}
	}
	return tried, made, err
}

// attemptPlainly tells GitHub a target in words of ours alone, after it refused
// the target with those of other people: no state is lost to its wording.
func (s *Service) attemptPlainly(ctx context.Context, client *github.Client, t target, made receipt, refused error) (target, receipt, error) {
	plain := t
	plain.plain, plain.githubID = true, cmp.Or(made.githubID, t.githubID)
	plain.desired.description = capital(strings.ReplaceAll(t.desired.state, "_", " ")) + "; GitHub refused the text"
	plainly, err := channelOf(t.kind).publish(ctx, client, plain)
	switch {
	case refusesText(err): // so it was not the text
		return t, plainly, refused
	case err != nil:
		return t, plainly, err
	}
	s.deps.Log.WarnContext(ctx, "GitHub refused a text; it was told the state in plain words",
		"target", t.id, "text", t.desired.description, "error", refused)
	plainly.note = cmp.Or(plainly.note, plain.desired.description)
	return plain, plainly, nil
}

// recorder records the calls of one attempt.
func (s *Service) recorder(installationID int64) *callRecorder {
	return &callRecorder{now: s.deps.Now, next: s.transport, observe: func(h http.Header) { s.limiter.recordQuota(installationID, h) }}
}

func (s *Service) client(tokens *tokenSource, calls http.RoundTripper) (*github.Client, error) {
	return kitgithub.New(kitgithub.Config{
		APIURL: s.deps.GitHubAPIURL, Tokens: tokens, JustMade: tokens.justMade, Tracer: s.deps.Tracer, Log: s.deps.Log, Base: calls,
	})
}
