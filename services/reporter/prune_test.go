package reporter

import (
	"context"
	"fmt"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestOldTargetsAreForgottenOnceTold(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		w.adjust = func(d *Deps) { d.Retention = time.Hour }
		s := w.reporter(open())
		w.report(s, 1, like(w.build(good), good))
		w.publishAll(s)
		other := w.build(queued) // never told
		other.Context = "forge/push"
		w.report(s, 1, other)
		w.must(s.prune(t.Context()))
		if n := len(w.targets(s)); n != 2 {
			t.Errorf("%d targets, want 2: nothing is old", n)
		}
		w.clock.Advance(time.Hour + time.Second)
		w.must(s.prune(t.Context()))
		if left := w.target(s); left.GetContext() != "forge/push" {
			t.Errorf("left is %v", left)
		}
		calls, err := s.store.history(t.Context(), buildTarget(reporterv1.Target_KIND_STATUS, w.build(good)))
		if err != nil || len(calls) != 0 {
			t.Errorf("calls of what is forgotten: %v, %v", calls, err)
		}
	})
}

func TestCallsOfATargetAreRemembered(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.sim.Misbehave(githubsim.Misbehaviour{Status: 502, Times: maxCalls + 5})
		w.report(s, 7, like(w.build(good), good))
		w.background(s.Run)
		kittest.Eventually(t, patience, func() error {
			resp, err := s.RetryTarget(t.Context(), &reporterv1.RetryTargetRequest{TargetId: w.target(s).GetId()})
			if err != nil || resp.GetTarget().GetState() != told {
				return fmt.Errorf("target is %v, %w", resp.GetTarget(), err)
			}
			return nil
		})
		resp, err := s.GetTarget(t.Context(), &reporterv1.GetTargetRequest{TargetId: w.target(s).GetId()})
		w.must(err)
		calls := resp.GetCalls()
		if len(calls) != maxCalls {
			t.Fatalf("%d calls, want %d", len(calls), maxCalls)
		}
		last := calls[maxCalls-1]
		if calls[maxCalls-2].GetStatus() != 502 || last.GetStatus() != 201 || last.GetVersion() != 7 || last.GetRequestId() == "" ||
			last.GetRequest() != "POST /repos/octo/shop/statuses/"+w.sha {
			t.Errorf("calls %v", calls)
		}
	})
}

func TestKeptTargetIsTriedWhenAPersonAsks(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.sim.Misbehave(githubsim.Misbehaviour{Status: 404, Times: 1})
	stop := w.background(s.Run)
	w.report(s, 1, w.build(queued))
	id := w.reaches(s, kept).GetId()
	stop()
	resp, err := s.RetryTarget(t.Context(), &reporterv1.RetryTargetRequest{TargetId: id})
	if err != nil || resp.GetTarget().GetState() != reporterv1.Target_STATE_PENDING {
		t.Errorf("%v, %v", resp, err)
	}
	w.publishAll(s)
	before := len(w.sim.Calls())
	resp, err = s.RetryTarget(t.Context(), &reporterv1.RetryTargetRequest{TargetId: id})
	if err != nil || resp.GetTarget().GetState() != told {
		t.Errorf("%v, %v", resp, err)
	}
	w.publishAll(s)
	if w.changes(before) != 0 {
		t.Error("what was told is told again")
	}
	_, err = s.RetryTarget(t.Context(), &reporterv1.RetryTargetRequest{TargetId: "nope"})
	wantFault(t, err, fault.NotFound, "no target nope")
}

func TestMetricsSayHowFarBehindGitHubIs(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		reader := sdkmetric.NewManualReader()
		meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		t.Cleanup(func() { w.must(meters.Shutdown(context.WithoutCancel(t.Context()))) })
		w.adjust = func(d *Deps) { d.Meter = meters }
		wantMetric := func(name string, want float64) {
			t.Helper()
			if got := kittest.Metric(t, reader, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		s := w.reporter(open())
		w.report(s, 1, like(w.build(good), good))
		w.clock.Advance(90 * time.Second)
		wantMetric("forge.reporter.untold.age", 90)
		w.publishAll(s)
		wantMetric("forge.reporter.untold.age", 0)
		wantMetric("forge.reporter.calls", 1)
		wantMetric("forge.reporter.calls.remaining", 4998) // the test's token cost one too
	})
}
