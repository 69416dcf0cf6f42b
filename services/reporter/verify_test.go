package reporter

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// overwrite has somebody else change what GitHub shows.
func (w *world) overwrite(path, body string) {
	w.t.Helper()
	token, err := w.mint(nil)
	w.must(err)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.github.URL+path, bytes.NewBufferString(body))
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	w.must(err)
	w.must(resp.Body.Close())
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	w.must(github.CheckResponse(resp))
}

func (w *world) setStatus(state string) {
	w.overwrite("/repos/octo/shop/statuses/"+w.sha, fmt.Sprintf(`{"state":%q,"context":"forge/test"}`, state))
}

func TestWhatGitHubShowsIsMended(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.report(s, 1, like(w.build(good), good))
		w.publishAll(s)
		w.setStatus("pending")
		w.must(s.verify(t.Context())) // too early
		if got := w.target(s); got.GetState() != told || got.GetVerifyTime() != nil {
			t.Errorf("read back too early: %v", got)
		}
		w.clock.Advance(verifyFirst)
		w.must(s.verify(t.Context()))
		if got := w.target(s); got.GetState() == told || got.GetVerifyTime() == nil {
			t.Errorf("taken for right: %v", got)
		}
		w.publishAll(s)
		w.wantHistory("success: Passed, 1 step", "pending: ", "success: Passed, 1 step")
	})
}

func TestWhatGitHubShowsIsReadBackFiveTimesADay(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, like(w.build(good), good))
	other := like(w.build(bad), bad)
	other.Context = "forge/push"
	w.report(s, 1, other)
	w.publishAll(s)
	before := len(w.sim.Calls())
	for range 30 * 60 {
		w.clock.Advance(time.Minute)
		w.must(s.verify(t.Context()))
	}
	reads := 0
	for _, c := range w.sim.Calls()[before:] {
		if strings.HasSuffix(c.Route, "/commits/{ref}/status") {
			reads++
		}
	}
	if reads != 5 { // both contexts of the commit with each
		t.Errorf("read back %d times, want 5", reads)
	}
}

func TestShortOfCallsNothingIsReadBack(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, like(w.build(good), good))
	w.publishAll(s)
	w.clock.Advance(verifyFirst)
	s.limiter.recordRefusal(w.installation, time.Minute)
	w.must(s.verify(t.Context()))
	if got := w.target(s); got.GetVerifyTime() != nil {
		t.Errorf("read back: %v", got)
	}
}

func TestChecksAndDeploymentsAreReadBack(t *testing.T) {
	w := newWorld(t)
	w.adjust = asChecks
	s := w.reporter(sqlite(t))
	w.report(s, 1, w.deploy("d1", "staging", good))
	w.publishAll(s)
	// GitHub itself makes the first inactive.
	first := w.sha
	w.sha = w.commit()
	w.report(s, 1, w.deploy("d2", "staging", good))
	w.publishAll(s)
	runs := w.runs()
	w.overwrite(fmt.Sprintf("/repos/octo/shop/deployments/%d/statuses", w.deployments()[1].ID), `{"state":"error"}`)
	for _, one := range w.targets(s) {
		resp, err := s.VerifyTarget(t.Context(), &reporterv1.VerifyTargetRequest{TargetId: one.GetId()})
		w.must(err)
		differs := one.GetKind() == reporterv1.Target_KIND_DEPLOYMENT && one.GetSha() != first
		if (resp.GetDifference() != "") != differs {
			t.Errorf("%v differs by %q", one, resp.GetDifference())
		}
	}
	w.publishAll(s)
	if all := w.deployments(); states(all[0]) != "success inactive" || states(all[1]) != "success error success" {
		t.Errorf("deployments %+v", all)
	}
	if again := w.runs(); len(again) != len(runs) {
		t.Errorf("check runs %+v", again)
	}
}

// GitHub lets people delete a deployment; what is told of it again is answered 404.
func TestDeletedDeploymentStaysDeleted(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, w.deploy("d1", "staging", good))
	w.publishAll(s)
	gone := responding(404, nil, `{"message":"Not Found"}`)
	w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/deployments/") && gone(rw, r)
	})
	w.clock.Advance(verifyFirst)
	w.must(s.verify(t.Context()))
	for _, one := range w.targets(s) {
		if one.GetState() != told || one.GetVerifyTime() == nil {
			t.Errorf("target is %v", one)
		}
	}
}

func TestVerifyingSaysWhatDiffersOrWhyNot(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, like(w.build(good), good))
	verify := func() (*reporterv1.VerifyTargetResponse, error) {
		return s.VerifyTarget(t.Context(), &reporterv1.VerifyTargetRequest{TargetId: w.target(s).GetId()})
	}
	_, err := verify()
	wantFault(t, err, fault.Conflict, "has not been told yet")
	w.publishAll(s)
	resp, err := verify()
	if err != nil || resp.GetDifference() != "" {
		t.Errorf("differs by %q, %v", resp.GetDifference(), err)
	}
	w.setStatus("error")
	resp, err = verify()
	if err != nil || resp.GetDifference() != "error:" || resp.GetTarget().GetState() == told {
		t.Errorf("differs by %q, %v", resp.GetDifference(), err)
	}
	w.publishAll(s)
	w.onTheWay(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusBadGateway)
		return true
	})
	_, err = verify()
	wantFault(t, err, fault.Unavailable, "502")
	_, err = s.VerifyTarget(t.Context(), &reporterv1.VerifyTargetRequest{TargetId: "nope"})
	wantFault(t, err, fault.NotFound, "no target nope")
}
