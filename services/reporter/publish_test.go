package reporter

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	queued  = schedulerv1.Build_STATE_QUEUED
	running = schedulerv1.Build_STATE_RUNNING
	good    = schedulerv1.Build_STATE_PASSED
	bad     = schedulerv1.Build_STATE_FAILED

	told    = reporterv1.Target_STATE_TOLD
	failing = reporterv1.Target_STATE_FAILING
	paused  = reporterv1.Target_STATE_PAUSED
	kept    = reporterv1.Target_STATE_KEPT
)

func TestFastBuildCostsTwoCalls(t *testing.T) {
	onSQLite(t, func(_ *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.background(s.Run)
		w.report(s, 1, w.build(queued))
		w.reaches(s, told)
		w.report(s, 2, w.build(running)) // waits for what may come within the second
		w.report(s, 3, like(w.build(good), good))
		w.reaches(s, told)
		w.wantHistory("pending: Queued", "success: Passed, 1 step")
	})
}

func TestSlowBuildIsShownRunning(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.background(s.Run)
		w.report(s, 1, w.build(queued))
		w.reaches(s, told)
		w.report(s, 2, w.build(running))
		if got := w.target(s); got.GetState() != reporterv1.Target_STATE_PENDING || got.GetNextTryTime().AsTime() != w.clock.Now().Add(pendingDelay) {
			t.Errorf("another text for pending is due at once: %v", got)
		}
		w.clock.Advance(pendingDelay)
		s.wake()
		w.reaches(s, told)
		w.wantHistory("pending: Queued", "pending: Running")
	})
}

func TestOnlyTheNewestOfReportsInAnyOrderIsTold(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.report(s, 3, like(w.build(good), good))
		w.report(s, 1, w.build(queued))
		w.report(s, 3, w.build(bad))
		w.report(s, 2, w.build(running))
		w.background(s.Run)
		w.reaches(s, told)
		w.report(s, 2, w.build(running))
		w.report(s, 4, like(w.build(good), good)) // looks the same
		if got := w.reaches(s, told); got.GetToldVersion() != 4 {
			t.Errorf("told %v, want version 4", got)
		}
		w.wantHistory("success: Passed, 1 step")
	})
}

func TestReportDuringACallIsToldAfterIt(t *testing.T) {
	onSQLite(t, func(_ *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		arrived, release := make(chan struct{}, 9), make(chan struct{})
		w.onTheWay(func(_ http.ResponseWriter, r *http.Request) bool {
			arrived <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return false
		})
		w.background(s.Run)
		w.report(s, 1, w.build(queued))
		<-arrived
		w.report(s, 2, like(w.build(bad), bad))
		w.report(s, 3, w.build(queued)) // looks like what is being told, but comes after it
		w.report(s, 4, like(w.build(good), good))
		close(release)
		w.reaches(s, told)
		w.wantHistory("pending: Queued", "success: Passed, 1 step")
	})
}

func TestTroubleOnTheWayEndsWithTheNextTryOrTheNextReport(t *testing.T) {
	for name, c := range map[string]struct {
		way   func(http.ResponseWriter, *http.Request) bool
		mint  error
		state reporterv1.Target_State
		pause time.Duration
		says  string
	}{
		"bad gateway":        {way: responding(502, nil, ""), state: failing, pause: time.Second, says: "502 Bad Gateway"},
		"too many statuses":  {way: responding(422, nil, `{"message":"Validation Failed","errors":[{"resource":"Status","code":"custom","message":"This SHA and context has reached the maximum number of statuses."}]}`), state: failing, pause: firstRefusedPause, says: "maximum number of statuses"},
		"no token for now":   {mint: fault.New(fault.Unavailable, "GitHub could not be asked"), state: failing, pause: time.Second, says: "GitHub could not be asked"},
		"config is broken":   {mint: fault.New(fault.Internal, "oops"), state: failing, pause: time.Second, says: "internal error"},
		"not installed":      {mint: fault.New(fault.NotFound, "the GitHub App is not installed on octo/shop"), state: failing, pause: firstRefusedPause, says: "not installed on octo/shop"},
		"token of suspended": {mint: fault.New(fault.Conflict, "installation of octo is suspended"), state: paused, pause: time.Second, says: "suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.reporter(sqlite(t))
			mint := w.mint
			if c.mint != nil {
				w.minting(func(*configv1.CreateTokenRequest) (string, error) { return "", c.mint })
			}
			w.onTheWay(c.way)
			w.background(s.Run)
			w.report(s, 1, like(w.build(good), good))
			got := w.reaches(s, c.state)
			if !strings.Contains(got.GetError(), c.says) {
				t.Errorf("error is %q, want something with %q", got.GetError(), c.says)
			}
			if next := got.GetNextTryTime(); next.AsTime() != w.clock.Now().Add(c.pause) {
				t.Errorf("next try at %v, want %v after %v", next.AsTime(), c.pause, w.clock.Now())
			}
			// Once the trouble is over, the next try or the next report gets through.
			w.onTheWay(nil)
			w.minting(mint)
			if c.pause == firstRefusedPause { // news end it
				w.report(s, 2, like(w.build(good), good))
			} else {
				w.clock.Advance(c.pause)
			}
			s.wake()
			if got := w.reaches(s, told); got.GetError() != "" || got.GetAttempts() != 0 {
				t.Errorf("told, and still %v", got)
			}
			w.wantHistory("success: Passed, 1 step")
		})
	}
}

func TestTokenIsRenewedOnceAfter401(t *testing.T) {
	w := newWorld(t)
	fresh, err := w.mint(nil)
	w.must(err)
	w.minting(func(req *configv1.CreateTokenRequest) (string, error) {
		if req.GetRejectedToken() == "" {
			return "ghs_stale", nil
		}
		return fresh, nil
	})
	kittest.DBs(t, "reporter", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.background(s.Run)
		w.report(s, 1, w.build(queued))
		w.reaches(s, told)
		w.mu.Lock()
		defer w.mu.Unlock()
		last := w.asked[len(w.asked)-1]
		if last.GetRejectedToken() != "ghs_stale" || last.GetRepository().GetId() != w.repository.GetId() || last.GetInstallationId() != w.installation {
			t.Errorf("asked config for %v", last)
		}
	})
}

func TestSuspendedInstallationIsResumed(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		mint := w.mint
		w.minting(func(*configv1.CreateTokenRequest) (string, error) { return "", fault.New(fault.Conflict, "suspended") })
		w.background(s.Run)
		w.report(s, 1, w.build(queued))
		w.reaches(s, paused)
		w.report(s, 2, like(w.build(good), good))
		if got := w.target(s); got.GetState() != paused || got.GetVersion() != 2 {
			t.Errorf("news end the pause: %v", got)
		}
		w.minting(mint)
		account := &eventv1.Event_Installation{Installation: &eventv1.InstallationEvent{Account: &eventv1.Account{Login: "octo"}}}
		if d := w.event(s, "unsuspend", &eventv1.Event{Payload: account}); d.GetReason() != eventv1.Reason_REASON_NOTED {
			t.Errorf("decided %v", d)
		}
		w.reaches(s, told)
		w.wantHistory("success: Passed, 1 step")
	})
}

func TestRenamedRepositoryIsFollowed(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.background(s.Run)
		b := w.build(queued)
		b.Repository = &eventv1.Repository{Id: w.repository.GetId(), Owner: "octo", Name: "kiosk"}
		w.report(s, 1, b)
		w.reaches(s, kept)
		changed := &eventv1.Event_RepositoryChanged{RepositoryChanged: &eventv1.RepositoryEvent{PreviousName: "kiosk"}}
		if d := w.event(s, "renamed", &eventv1.Event{Repository: w.repository, Payload: changed}); d.GetText() != "repository is octo/shop now" {
			t.Errorf("decided %v", d)
		}
		w.reaches(s, told)
		w.wantHistory("pending: Queued")
	})
}

func TestTransferredRepositoryIsFollowedToItsNewInstallation(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, w.build(queued))
	w.publishAll(s)
	token := w.mint
	w.must(w.sim.TransferRepository("octo", "shop", "kiwi"))
	w.minting(func(req *configv1.CreateTokenRequest) (string, error) {
		if req.GetInstallationId() == w.installation {
			return "", fault.New(fault.NotFound, "the GitHub App is not installed on octo/shop")
		}
		return token(req)
	})
	stop := w.background(s.Run)
	w.report(s, 2, like(w.build(good), good))
	kittest.Eventually(t, patience, func() error {
		w.tick(s)
		if got := w.target(s); got.GetState() != failing {
			return fmt.Errorf("target is %v", got)
		}
		return nil
	})
	w.installation = w.sim.AddInstallation("kiwi")
	w.mintFor(w.installation)
	moved := &eventv1.Event_RepositoryChanged{RepositoryChanged: &eventv1.RepositoryEvent{PreviousOwner: "octo"}}
	to := &eventv1.Repository{Id: w.repository.GetId(), Owner: "kiwi", Name: "shop"}
	if d := w.event(s, "transferred", &eventv1.Event{Repository: to, Payload: moved}); d.GetText() != "repository is kiwi/shop now" {
		t.Errorf("decided %v", d)
	}
	w.reaches(s, told)
	stop()
	history, err := w.sim.StatusHistory("kiwi", "shop", w.sha)
	w.must(err)
	if len(history) != 2 || history[1].State != "success" {
		t.Errorf("GitHub was told %v", history)
	}
}

func TestTellingJoinsTheBuildsTrace(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		spans := tracetest.NewSpanRecorder()
		provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
		s, err := New(Deps{DB: open(), Config: w.config, GitHubAPIURL: w.github.URL, Tracer: provider})
		w.must(err)
		ctx, span := provider.Tracer("test").Start(t.Context(), "build")
		_, err = s.Report(ctx, &reporterv1.ReportRequest{Build: w.build(queued), Version: 1})
		w.must(err)
		span.End()
		stop := w.background(s.Run)
		w.reaches(s, told)
		stop()
		names := map[string]bool{}
		for _, ended := range spans.Ended() {
			names[ended.Name()] = ended.SpanContext().TraceID() == span.SpanContext().TraceID()
		}
		for _, name := range []string{"tell GitHub forge/test", "GitHub: set a commit status in octo/shop"} {
			if !names[name] {
				t.Errorf("no span %q in the build's trace, of all: %v", name, names)
			}
		}
	})
}
