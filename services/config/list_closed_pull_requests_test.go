package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

// closedOf asks which of these pull requests are closed, a line for each: repository,
// number, how, and sender.
func (w *world) closedOf(frugal bool, all ...*eventv1.PullRequestName) (found []string, err error) {
	w.t.Helper()
	stream, err := configv1.NewPullRequestServiceClient(w.as("gateway")).ListClosedPullRequests(w.t.Context(),
		&configv1.ListClosedPullRequestsRequest{PullRequests: all, Frugal: frugal})
	if err != nil {
		return nil, err
	}
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		var payload github.PullRequestEvent
		if err := json.Unmarshal(one.GetPayload(), &payload); err != nil || payload.GetAction() != "closed" || payload.GetInstallation().GetID() != w.install ||
			payload.GetNumber() != payload.GetPullRequest().GetNumber() || payload.GetPullRequest().GetClosedAt().IsZero() {
			w.t.Errorf("payload %s, error %v", one.GetPayload(), err)
		}
		how := "closed"
		if payload.GetPullRequest().GetMerged() {
			how = "merged"
		}
		found = append(found, fmt.Sprintf("%s %d %s by %s", payload.GetRepo().GetFullName(), payload.GetNumber(), how, cmp.Or(payload.GetSender().GetLogin(), "nobody")))
	}
}

func (w *world) wantClosed(why string, all []*eventv1.PullRequestName, want ...string) {
	w.t.Helper()
	if got, err := w.closedOf(true, all...); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("%s: listed\n%s\nerror %v, want\n%s", why, strings.Join(got, "\n"), err, strings.Join(want, "\n"))
	}
}

// named names pull requests of acme/app.
func (w *world) named(numbers ...int) (all []*eventv1.PullRequestName) {
	for _, n := range numbers {
		all = append(all, &eventv1.PullRequestName{Repository: w.repo, InstallationId: w.install, Number: int32(n)})
	}
	return all
}

func TestClosedPullRequestsAreListed(t *testing.T) {
	w := newWorld(t)
	_, open := w.propose("open", write("a"))
	_, merged := w.propose("merged", write("b"))
	_, closed := w.propose("closed", write("c"))
	if _, err := w.sim.Merge("acme", "app", merged); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.ClosePullRequest("acme", "app", closed); err != nil {
		t.Fatal(err)
	}
	all := w.named(open, merged, 4711, closed)
	want := []string{fmt.Sprintf("acme/app %d merged by %s", merged, author), fmt.Sprintf("acme/app %d closed by nobody", closed)}
	w.wantClosed("as they are", all, want...)

	// Who asks may not know the installation, or the name of today.
	for _, one := range all {
		one.InstallationId = 0
	}
	w.wantClosed("without the installation", all, want...)
	if err := w.sim.RenameRepository("acme", "app", "shop"); err != nil {
		t.Fatal(err)
	}
	w.wantClosed("after a rename", all, strings.Replace(want[0], "app", "shop", 1), strings.Replace(want[1], "app", "shop", 1))

	// One of the same name is another.
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "app", Files: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	w.wantClosed("another repository", all)
	if err := w.sim.ReopenPullRequest("acme", "shop", closed); err != nil {
		t.Fatal(err)
	}
	w.wantClosed("opened again", []*eventv1.PullRequestName{{
		Repository: &eventv1.Repository{Id: w.repo.GetId(), Owner: "acme", Name: "shop"}, Number: int32(closed),
	}})
}

// What cannot be asked about counts as open.
func TestAPullRequestIsClosedOnlyWhereGitHubSaysSo(t *testing.T) {
	w := newWorld(t)
	_, first := w.propose("first", write("a"))
	_, second := w.propose("second", write("b"))
	for _, number := range []int{first, second} {
		if err := w.sim.ClosePullRequest("acme", "app", number); err != nil {
			t.Fatal(err)
		}
	}
	one := fmt.Sprintf("/pulls/%d", first)
	others := fmt.Sprintf("acme/app %d closed by nobody", second)
	for _, status := range []int{403, 404, 410, 451} {
		w.front.answers(one, status, "no")
		w.wantClosed(strconv.Itoa(status), w.named(first, second), others)
	}
	for name, trouble := range map[string]func(){
		"502":        func() { w.front.answers(one, 502, "bad gateway") },
		"rate limit": func() { w.front.answers(one, 403, "slow down", "Retry-After", "7") },
		"cut":        func() { w.front.cuts(one, 10) },
		"no token":   func() { w.front.answers(one, 401, "Bad credentials") },
	} {
		trouble()
		w.wantClosed(name, w.named(first, second))
	}
	for name, body := range map[string]string{
		"nothing": `{}`, "no state": fmt.Sprintf(`{"number": %d, "base": {"repo": {"id": %d}}}`, first, w.repo.GetId()),
		"another repository": fmt.Sprintf(`{"number": %d, "state": "closed", "closed_at": "2026-01-02T03:04:05Z", "base": {"repo": {"id": %d}}}`, first, w.repo.GetId()+1),
		"another one":        fmt.Sprintf(`{"number": %d, "state": "closed", "closed_at": "2026-01-02T03:04:05Z", "base": {"repo": {"id": %d}}}`, second, w.repo.GetId()),
	} {
		w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, one) {
				return false
			}
			_, _ = io.WriteString(out, body)
			return true
		})
		w.wantClosed(name, w.named(first, second), others)
	}
	w.front.set(nil)
	w.wantClosed("GitHub is back", w.named(first, second), fmt.Sprintf("acme/app %d closed by nobody", first), others)

	if err := w.sim.SuspendInstallation("acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.installations.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantClosed("suspended", w.named(first, second))
	if _, err := w.closedOf(true, &eventv1.PullRequestName{Repository: &eventv1.Repository{Owner: "acme", Name: "app"}, Number: 1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("without the repository's id: %v", err)
	}
	stream, err := configv1.NewPullRequestServiceClient(w.as("scheduler")).ListClosedPullRequests(t.Context(), &configv1.ListClosedPullRequestsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	w.wantFault(err, fault.Denied, "gateway")
}

func TestAskingWhatIsClosedLeavesCallsToBuilds(t *testing.T) {
	w := newWorld(t)
	var numbers []int
	for i := range 15 {
		_, number := w.propose(fmt.Sprintf("change-%d", i), write(fmt.Sprintf("file-%d", i)))
		numbers = append(numbers, number)
	}
	asked := func(limit, remaining int, frugal bool) int {
		w.rates(limit, remaining)
		defer w.front.set(nil)
		before := w.calls("/pulls/")
		if found, err := w.closedOf(frugal, w.named(numbers...)...); len(found) > 0 || err != nil {
			t.Errorf("found %v, error %v", found, err)
		}
		return w.calls("/pulls/") - before
	}
	for _, c := range []struct {
		limit, remaining int
		frugal           bool
		want             int
	}{{5000, 4000, true, 15}, {100, 90, true, 10}, {5000, 2000, true, 1}, {100, 10, false, 15}} {
		if n := asked(c.limit, c.remaining, c.frugal); n != c.want {
			t.Errorf("%d calls of %d, with %d left and frugal %v; want %d", n, c.limit, c.remaining, c.frugal, c.want)
		}
	}
}
