package reporter

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-github/v62/github"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

const (
	// GitHub itself ends a call after 10 s:
	// https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api#timeouts
	tryFor       = 12 * time.Second
	settleWithin = 3 * time.Second
	leaseFor     = tryFor + settleWithin + 5*time.Second
)

// leaseUntil is the end of a lease that begins now, as it is read again.
func leaseUntil(now time.Time) time.Time { return sqldb.Time(sqldb.Micros(now.Add(leaseFor))) }

// answer is what came of telling; a status has none.
type answer struct {
	pullRequest int32
	githubID    int64
	note        string // for people
}

// work makes one try and writes down how it ended.
func (s *Service) work(ctx context.Context, claimed target) {
	defer func() {
		awaited := s.gate.leave(claimed.installationID)
		if s.handover.free() || awaited {
			s.wake()
		}
	}()
	ctx, span := s.tracer.Start(telemetry.WithTraceparent(ctx, claimed.traceparent), "tell GitHub "+claimed.noun(),
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("forge.target", claimed.id), attribute.String("forge.sha", claimed.sha)))
	defer span.End()

	calls := s.wire(claimed.installationID)
	tried, got, err := s.try(ctx, calls, claimed)
	stopped := err != nil && ctx.Err() != nil
	var why setback
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		why = judge(err)
		// A try may have made something before it failed.
		why.refused = why.refused && !claimed.begun
		if why.after > 0 {
			s.gate.refused(claimed.installationID, why.after)
		}
	}
	log := s.deps.Log.With("target", claimed.id, "repository", claimed.repository.GetOwner()+"/"+claimed.repository.GetName(),
		"sha", claimed.sha, "context", claimed.context)
	change := func(t *target) {
		now := s.deps.Now()
		t.githubID = cmp.Or(got.githubID, t.githubID)
		switch {
		case err == nil:
			if got.note != "" && t.version == tried.version {
				t.pullRequest, t.want.description = cmp.Or(got.pullRequest, t.pullRequest), got.note
				tried.want.description = got.note
			}
			t.succeed(tried.version, tried.want, now)
		case stopped:
			t.release(now)
		default:
			t.fail(tried.version, why, now, s.deps.Random)
		}
	}
	made := calls.made()
	for i := range made {
		made[i].version = tried.version
		s.metrics.called(ctx, claimed.kind, made[i])
	}
	// A stop ends ctx; how the try ended is written down all the same.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	settled, settleErr := s.store.settle(ending, claimed, made, change)
	switch {
	case settleErr != nil:
		log.ErrorContext(ctx, "outcome not stored; GitHub is told again when the lease is over", "error", settleErr)
	case err == nil:
		log.InfoContext(ctx, "GitHub told", "version", tried.version, "state", tried.want.state, "text", tried.want.description)
	case settled.state == reporterv1.Target_STATE_KEPT:
		log.ErrorContext(ctx, "GitHub not told, kept for a person", "version", tried.version, "error", settled.err)
	case !stopped:
		log.WarnContext(ctx, "GitHub not told, tried again", "version", tried.version, "due", settled.due, "error", settled.err)
	}
	if settled.state == reporterv1.Target_STATE_PENDING || settled.replaces() { // something newer came meanwhile, or was made
		s.wake()
	}
}

// noun is what a target tells, for the name of a span: of these there are few.
func (t *target) noun() string {
	if t.kind == reporterv1.Target_KIND_COMMENT {
		return "an answer"
	}
	return t.context
}

// tellers are how each kind of target is told.
func tellers() map[reporterv1.Target_Kind]func(context.Context, *github.Client, target) (answer, error) {
	return map[reporterv1.Target_Kind]func(context.Context, *github.Client, target) (answer, error){
		reporterv1.Target_KIND_STATUS:     tellStatus,
		reporterv1.Target_KIND_PROMOTION:  tellPromotion,
		reporterv1.Target_KIND_CHECK_RUN:  tellCheck,
		reporterv1.Target_KIND_DEPLOYMENT: tellDeployment,
		reporterv1.Target_KIND_COMMENT:    tellAnswer,
	}
}

// try tells GitHub the newest of a target, and returns what that was.
func (s *Service) try(ctx context.Context, calls *wire, claimed target) (target, answer, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	from := s.tokens.source(claimed)
	if _, err := from.Token(ctx); err != nil {
		return claimed, answer{}, err
	}
	newest := claimed
	if !from.old { // a token can take its time
		var err error
		if newest, err = s.store.get(ctx, claimed.id); err != nil {
			return claimed, answer{}, err
		}
		newest.begun = claimed.begun // since the claim it says that this try has begun
	}
	if newest.want == newest.told {
		return newest, answer{}, nil
	}
	client, err := s.client(from, calls)
	if err != nil {
		return newest, answer{}, err
	}
	got, err := tellers()[newest.kind](ctx, client, newest)
	if err != nil && from.old && judge(err).state != reporterv1.Target_STATE_FAILING {
		s.tokens.drop(newest.installationID, newest.repository.GetId())
		err = &olderTokenError{err}
	}
	return newest, got, err
}

func tellStatus(ctx context.Context, client *github.Client, t target) (answer, error) {
	_, _, err := client.Repositories.CreateStatus(ctx, t.repository.GetOwner(), t.repository.GetName(), t.sha, &github.RepoStatus{
		State: &t.want.state, Description: &t.want.description, TargetURL: &t.want.url, Context: &t.context,
	})
	return answer{}, err
}

// wire carries the calls of one try.
func (s *Service) wire(installationID int64) *wire {
	return &wire{now: s.deps.Now, next: s.transport, heard: func(h http.Header) { s.gate.heard(installationID, h) }}
}

func (s *Service) client(from kitgithub.TokenSource, calls http.RoundTripper) (*github.Client, error) {
	return kitgithub.New(kitgithub.Config{
		APIURL: s.deps.GitHubAPIURL, Tokens: from, Tracer: s.deps.Tracer, Log: s.deps.Log, Base: calls,
	})
}

// olderTokenError is a refusal of a token that was there before the try: it may
// know less than a new one would, as which permissions were accepted since.
type olderTokenError struct{ cause error }

func (e *olderTokenError) Error() string { return e.cause.Error() }
func (e *olderTokenError) Unwrap() error { return e.cause }

// setback is what a failed try means for its target.
type setback struct {
	state   reporterv1.Target_State // failing, paused or kept
	after   time.Duration           // the pause that GitHub asks for; 0: none in particular
	text    string
	refused bool // GitHub did nothing
}

// judge says what an error means. What is nobody's decision, and credentials
// that an operator can mend, are tried again.
func judge(err error) setback {
	outcome := kitgithub.Classify(err)
	why := setback{state: reporterv1.Target_STATE_FAILING, after: outcome.After, text: outcome.Text}
	why.refused = outcome.Kind != fault.Unavailable && outcome.Kind != fault.Internal
	_, suspended := errors.AsType[*suspendedError](err)
	_, older := errors.AsType[*olderTokenError](err)
	switch {
	case older: // a new one is asked for first
	case suspended, outcome.Suspended:
		why.state = reporterv1.Target_STATE_PAUSED
	case outcome.Retry:
	case slices.Contains([]fault.Kind{fault.Denied, fault.NotFound, fault.Invalid, fault.Conflict}, outcome.Kind):
		why.state = reporterv1.Target_STATE_KEPT
	}
	return why
}
