package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

const author = "octocat" // of what githubsim is not told the author of

// changedSince asks for what changed, a line for each: repository, number, action,
// sender and sha.
func (w *world) changedSince(since time.Time, frugal bool) (found []string, err error) {
	w.t.Helper()
	stream, err := configv1.NewPullRequestServiceClient(w.as("gateway")).ListChangedPullRequests(w.t.Context(),
		&configv1.ListChangedPullRequestsRequest{Since: timestamppb.New(since), Frugal: frugal})
	if err != nil {
		return nil, err
	}
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			slices.Sort(found)
			return found, nil
		}
		if err != nil {
			return found, err
		}
		var payload github.PullRequestEvent
		if err := json.Unmarshal(one.GetPayload(), &payload); err != nil || payload.GetRepo().GetID() != one.GetRepositoryId() {
			w.t.Errorf("payload %s, error %v", one.GetPayload(), err)
		}
		found = append(found, fmt.Sprintf("%s %d %s %s %s", payload.GetRepo().GetName(), one.GetNumber(), payload.GetAction(),
			cmp.Or(payload.GetSender().GetLogin(), "nobody"), one.GetSha()))
	}
}

func (w *world) wantChanged(since time.Time, frugal bool, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	if got, err := w.changedSince(since, frugal); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("listed\n%s\nerror %v, want\n%s", strings.Join(got, "\n"), err, strings.Join(want, "\n"))
	}
}

func TestListHoldsWhatIsOpenOrMerged(t *testing.T) {
	w := newWorld(t)
	begin := time.Now().Add(-time.Minute)
	open, first := w.propose("open", write("a"))
	_, merged := w.propose("merged", write("b"))
	merge, err := w.sim.Merge("acme", "app", merged)
	if err != nil {
		t.Fatal(err)
	}
	_, closed := w.propose("closed", write("c"))
	if err := w.sim.ClosePullRequest("acme", "app", closed); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Fork("acme", "app", "mallory"); err != nil {
		t.Fatal(err)
	}
	foreign, err := w.sim.Commit("mallory", "app", "main", write("d"))
	if err != nil {
		t.Fatal(err)
	}
	fork, err := w.sim.OpenPullRequest("acme", "app", githubsim.PullRequest{Head: "mallory:main", Base: "main", Title: "fork", Author: "mallory"})
	if err != nil {
		t.Fatal(err)
	}

	want := []string{
		fmt.Sprintf("app %d synchronize %s %s", first, author, open),
		fmt.Sprintf("app %d closed %s %s", merged, author, merge),
		// Its author may have write access, who pushed to it may not.
		fmt.Sprintf("app %d synchronize nobody %s", fork, foreign),
	}
	w.wantChanged(begin, false, want...)
	w.wantChanged(begin, true, want...)
	w.wantChanged(time.Now().Add(time.Hour), false)
}

// rates has GitHub say how many calls of an hour's are left.
func (w *world) rates(limit, remaining int) {
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		answer := httptest.NewRecorder()
		w.front.sim.ServeHTTP(answer, r)
		maps.Copy(out.Header(), answer.Header())
		out.Header().Set("X-Ratelimit-Limit", strconv.Itoa(limit))
		out.Header().Set("X-Ratelimit-Remaining", strconv.Itoa(remaining))
		out.WriteHeader(answer.Code)
		_, _ = out.Write(answer.Body.Bytes())
		return true
	})
}

func TestFrugalListLeavesCallsToBuilds(t *testing.T) {
	w := newWorld(t)
	begin := time.Now().Add(-time.Minute)
	for i := range 30 {
		if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: fmt.Sprintf("quiet-%d", i), Files: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	sha, number := w.propose("change", write("a"))
	all := fmt.Sprintf("app %d synchronize %s %s", number, author, sha)
	asked := func(limit, remaining int, frugal bool, want ...string) int {
		w.rates(limit, remaining)
		defer w.front.set(nil)
		before := w.calls("/pulls")
		w.wantChanged(begin, frugal, want...)
		return w.calls("/pulls") - before
	}
	if n := asked(5000, 4000, true, all); n != 32 { // a list each, and the one that changed
		t.Errorf("%d calls with enough of them", n)
	}
	if n := asked(100, 90, true, all); n < 10 || n > 11 {
		t.Errorf("%d calls, a tenth of them are 10", n)
	}
	if n := asked(5000, 2000, true); n != 0 {
		t.Errorf("%d calls where less than half is left", n)
	}
	if n := asked(100, 10, false, all); n != 32 {
		t.Errorf("%d calls of a list that is to see all", n)
	}
}

func TestListLeavesOutWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	begin := time.Now().Add(-time.Minute)
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "blocked", Files: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	sha, number := w.propose("change", write("a"))
	for _, status := range []int{403, 404, 451} {
		w.front.answers("/repos/acme/blocked", status, "Repository access blocked")
		w.wantChanged(begin, false, fmt.Sprintf("app %d synchronize %s %s", number, author, sha))
	}
	for name, trouble := range map[string]func(){
		"502":        func() { w.front.answers("/pulls", 502, "bad gateway") },
		"rate limit": func() { w.front.answers("/pulls", 403, "slow down", "Retry-After", "7") },
		"cut":        func() { w.front.cuts("/pulls", 10) },
		"list":       func() { w.front.answers("/installation/repositories", 500, "unicorn") },
	} {
		trouble()
		if found, err := w.changedSince(begin, false); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: found %v, error %v", name, found, err)
		}
	}
	w.front.set(nil)
	stream, err := configv1.NewPullRequestServiceClient(w.as("scheduler")).ListChangedPullRequests(t.Context(), &configv1.ListChangedPullRequestsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	w.wantFault(err, fault.Denied, "gateway")
}
