package githubsim_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestCallsAreRecordedAndCounted(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	_, answer, err := shop.Repositories.Get(ctx, "acme", "shop")
	w.must(err)
	if answer.Rate.Limit != 5000 || answer.Rate.Remaining != 4999 || answer.Header.Get("X-Github-Request-Id") == "" {
		t.Errorf("got rate %v, headers %v", answer.Rate, answer.Header)
	}
	_, _, err = shop.Issues.Get(ctx, "acme", "shop", 1)
	wantError(t, err, http.StatusNotFound, "Not Found")
	limits, _, err := shop.RateLimit.Get(ctx)
	if err != nil || limits.GetCore().Limit != 5000 || limits.GetCore().Remaining != 4999 {
		t.Errorf("got %v, error %v", limits, err)
	}
	meta, _, err := w.client("").Meta.Get(ctx)
	if err != nil || len(meta.Hooks) != 2 {
		t.Errorf("got %v, error %v", meta, err)
	}
	calls := w.sim.Calls()
	if len(calls) != 5 {
		t.Fatalf("got %d calls", len(calls))
	}
	if c := calls[1]; c.Route != "GET /repos/{owner}/{repo}" || c.Path != "/repos/acme/shop" || c.Status != http.StatusOK || c.Installation != w.installation {
		t.Errorf("got %+v", c)
	}
	if c := calls[2]; c.Route != "/" || c.Status != http.StatusNotFound {
		t.Errorf("what is not known is recorded: got %+v", c)
	}
}

func TestUnchangedAnswersCostNothing(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	get := func(tag string) *github.Response {
		request, err := shop.NewRequest(http.MethodGet, "repos/acme/shop/git/ref/heads/main", nil)
		w.must(err)
		request.Header.Set("If-None-Match", tag)
		answer, err := shop.Do(ctx, request, nil)
		if answer == nil {
			t.Fatal(err)
		}
		return answer
	}
	first := get("")
	again := get(first.Header.Get("ETag"))
	if again.StatusCode != http.StatusNotModified || again.Rate.Remaining != first.Rate.Remaining {
		t.Errorf("got %s, remaining %d after %d", again.Status, again.Rate.Remaining, first.Rate.Remaining)
	}
	w.commit("main", map[string]string{"x": "x"})
	if changed := get(first.Header.Get("ETag")); changed.StatusCode != http.StatusOK {
		t.Errorf("got %s", changed.Status)
	}
}

func TestPeopleUseThePage(t *testing.T) {
	w := newWorld(t)
	post := func(path string, form url.Values) (int, string) {
		return w.fetch(http.MethodPost, path, "*/*", form)
	}
	code, said := post("/sim/acme/shop/pulls", url.Values{"title": {"A change"}, "file": {"README.md"}, "content": {"# New\n"}})
	if code != http.StatusOK || said != "opened acme/shop#1: A change\n" {
		t.Errorf("got %d %q", code, said)
	}
	for _, step := range []string{"push", "close", "reopen"} {
		if code, said := post("/sim/acme/shop/pulls/1/"+step, nil); code != http.StatusOK {
			t.Errorf("%s: got %d %q", step, code, said)
		}
	}
	p, err := w.sim.PullRequest("acme", "shop", 1)
	w.must(err)
	_, _, err = w.shop().Repositories.CreateStatus(t.Context(), "acme", "shop", p.HeadSHA, &github.RepoStatus{
		State: new("failure"), Context: new("forge/test"), Description: new("<b>Step 2</b> failed"), TargetURL: new("https://forge.example/b/1"),
	})
	w.must(err)
	code, page := w.fetch(http.MethodGet, "/acme/shop/pull/1", "text/html", nil)
	for _, want := range []string{"A change", "forge/test", "&lt;b&gt;Step 2&lt;/b&gt; failed", `href="https://forge.example/b/1"`, `action="/sim/acme/shop/pulls/1/merge"`} {
		if code != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%d: the page lacks %q", code, want)
		}
	}
	code, page = w.fetch(http.MethodPost, "/sim/acme/shop/pulls/1/merge", "text/html", nil)
	if code != http.StatusOK || !strings.Contains(page, "merged as") {
		t.Errorf("a browser is led back to the page: got %d", code)
	}
	for path, want := range map[string]string{
		"/sim/acme/shop/pulls/1/merge":  "merge acme/shop#1: it is closed\n",
		"/sim/acme/shop/pulls/x/push":   "pull request acme/shop#0 does not exist\n",
		"/sim/acme/nowhere/pulls":       "repository acme/nowhere does not exist\n",
		"/sim/acme/shop/pulls/1/reopen": "pull request acme/shop#1 is merged\n",
	} {
		if code, said := post(path, nil); code != http.StatusUnprocessableEntity || said != want {
			t.Errorf("%s: got %d %q", path, code, said)
		}
	}
	if _, index := w.fetch(http.MethodGet, "/sim", "text/html", nil); !strings.Contains(index, `href="/sim/acme/shop"`) {
		t.Error("the index lacks acme/shop")
	}
	if code, _ := w.fetch(http.MethodGet, "/sim/acme/nowhere", "text/html", nil); code != http.StatusNotFound {
		t.Errorf("got %d", code)
	}
}

func (w *world) fetch(method, path, accept string, form url.Values) (int, string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(form.Encode()))
	w.must(err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", accept)
	answer, err := http.DefaultClient.Do(request)
	w.must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	w.must(err)
	return answer.StatusCode, string(body)
}

func TestWorldsRefuseWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	_, unknownBranch := w.sim.Commit("acme", "shop", "gone", githubsim.Commit{})
	_, unknownHead := w.sim.Head("acme", "shop", "gone")
	for want, err := range map[string]error{
		"repository acme/shop exists already":         w.sim.AddRepository(newRepository("acme", "shop")),
		"branch main of acme/shop exists already":     w.sim.CreateBranch("acme", "shop", "main", "main"),
		"branch x of acme/shop: no commit at gone":    w.sim.CreateBranch("acme", "shop", "x", "gone"),
		"repository acme/nowhere does not exist":      w.sim.CreateBranch("acme", "nowhere", "x", "main"),
		"commit to gone of acme/shop: no such branch": unknownBranch,
		"acme/shop has no commit at gone":             unknownHead,
		"pull request acme/shop#3 does not exist":     w.sim.ClosePullRequest("acme", "shop", 3),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	var all sync.WaitGroup
	failures := make(chan error, 100)
	for branch := range strings.FieldsSeq("a b c d e f g h") {
		all.Go(func() {
			if err := w.sim.CreateBranch("acme", "shop", branch, "main"); err != nil {
				failures <- err
				return
			}
			sha, err := w.sim.Commit("acme", "shop", branch, githubsim.Commit{Files: map[string]string{branch: branch}})
			_, errOpen := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: branch, Head: branch})
			_, _, errStatus := shop.Repositories.CreateStatus(ctx, "acme", "shop", sha, &github.RepoStatus{State: new("success")})
			_, _, errList := shop.PullRequests.List(ctx, "acme", "shop", nil)
			if err := errors.Join(err, errOpen, errStatus, errList); err != nil {
				failures <- err
			}
			w.sim.Calls()
			w.sim.Deliveries()
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if list := w.settle(); len(list) != 1+8*3 {
		t.Errorf("got %d deliveries", len(list))
	}
	pulls, err := w.sim.PullRequests("acme", "shop")
	if err != nil || len(pulls) != 8 {
		t.Errorf("got %d pull requests, error %v", len(pulls), err)
	}
}
