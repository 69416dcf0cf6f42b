package githubsim_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestPullRequestIsOpenedPushedAndMerged(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	number := w.pull("feature")
	head := w.commit("feature", map[string]string{"more.txt": "1\n2\n"})
	main := w.commit("main", map[string]string{"meanwhile.txt": "x\n"})

	p, _, err := shop.PullRequests.Get(ctx, "acme", "shop", number)
	w.must(err)
	if p.GetState() != "open" || p.GetHead().GetSHA() != head || p.GetBase().GetRef() != "main" || p.GetUser().GetLogin() != "mona" ||
		p.GetCommits() != 2 || p.GetChangedFiles() != 2 || p.GetAdditions() != 3 || !p.GetMergeable() || p.GetMerged() {
		t.Errorf("got %.300v", p)
	}
	tested, _, err := shop.Git.GetRef(ctx, "acme", "shop", "pull/1/merge")
	if err != nil || tested.GetObject().GetSHA() != p.GetMergeCommitSHA() {
		t.Errorf("got test merge %v, error %v", tested, err)
	}
	readHead, _, err := shop.Git.GetRef(ctx, "acme", "shop", "pull/1/head")
	if err != nil || readHead.GetObject().GetSHA() != head {
		t.Errorf("got head %v, error %v", readHead, err)
	}
	files, _, err := shop.PullRequests.ListFiles(ctx, "acme", "shop", number, nil)
	if err != nil || len(files) != 2 || files[0].GetFilename() != "feature.txt" || files[0].GetStatus() != "added" {
		t.Errorf("got files %v, error %v", files, err)
	}

	merged, err := w.sim.Merge("acme", "shop", number)
	w.must(err)
	p, _, err = shop.PullRequests.Get(ctx, "acme", "shop", number)
	w.must(err)
	if !p.GetMerged() || p.GetState() != "closed" || p.GetMergeCommitSHA() != merged || p.GetMergedBy().GetLogin() != "octocat" {
		t.Errorf("got %.300v", p)
	}
	commit, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", "main", nil)
	w.must(err)
	if commit.GetSHA() != merged || len(commit.Parents) != 2 || commit.Parents[0].GetSHA() != main || commit.Parents[1].GetSHA() != head {
		t.Errorf("got merge commit %v", commit)
	}
	for _, name := range []string{"feature.txt", "more.txt", "meanwhile.txt", ".forge.yml"} {
		if _, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", name, nil); err != nil {
			t.Errorf("%s is not on main: %v", name, err)
		}
	}
	if _, err := w.sim.Merge("acme", "shop", number); err == nil {
		t.Error("merged twice")
	}
	if err := w.sim.ReopenPullRequest("acme", "shop", number); err == nil {
		t.Error("reopened what is merged")
	}
}

func TestPromotionIsOpenedOnce(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.CreateBranch("acme", "shop", "production", "main"))
	shop, ctx := w.shop(), t.Context()
	promotion := &github.NewPullRequest{Title: new("Deploy to production"), Head: new("main"), Base: new("production"), Body: new("Carries #1")}

	_, _, err := shop.PullRequests.Create(ctx, "acme", "shop", promotion)
	wantError(t, err, http.StatusUnprocessableEntity, "No commits between production and main")
	_, err = w.sim.Merge("acme", "shop", w.pull("feature"))
	w.must(err)
	opened, _, err := shop.PullRequests.Create(ctx, "acme", "shop", promotion)
	w.must(err)
	if opened.GetUser().GetLogin() != "forge[bot]" || opened.GetBody() != "Carries #1" || opened.GetNumber() != 2 {
		t.Errorf("got %.300v", opened)
	}
	_, _, err = shop.PullRequests.Create(ctx, "acme", "shop", promotion)
	wantError(t, err, http.StatusUnprocessableEntity, "A pull request already exists for acme:main.")
	found, _, err := shop.PullRequests.List(ctx, "acme", "shop", &github.PullRequestListOptions{Head: "acme:main", Base: "production"})
	if err != nil || len(found) != 1 || found[0].GetNumber() != 2 {
		t.Errorf("got %v, error %v", found, err)
	}
	production, err := w.sim.Merge("acme", "shop", 2)
	w.must(err)
	diff, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", "main", production, nil)
	if err != nil || diff.GetStatus() != "ahead" || diff.GetAheadBy() != 1 {
		t.Errorf("got %v, error %v", diff, err)
	}
}

func TestPullRequestsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.commit("feature", map[string]string{"x": "x"})
	shop, ctx := w.shop(), t.Context()
	for name, test := range map[string]struct{ title, head, base, says string }{
		"no title":     {"", "feature", "main", "PullRequest title missing_field"},
		"long title":   {strings.Repeat("x", 257), "feature", "main", "title is too long (maximum is 256 characters)"},
		"unknown head": {"A change", "gone", "main", "PullRequest head invalid"},
		"unknown base": {"A change", "feature", "gone", "PullRequest base invalid"},
		"itself":       {"A change", "main", "main", "No commits between main and main"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := shop.PullRequests.Create(ctx, "acme", "shop", &github.NewPullRequest{Title: &test.title, Head: &test.head, Base: &test.base})
			wantError(t, err, http.StatusUnprocessableEntity, test.says)
		})
	}
	_, _, err := shop.PullRequests.Get(ctx, "acme", "shop", 7)
	wantError(t, err, http.StatusNotFound, "Not Found")
	if _, err := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "x", Head: "gone"}); err == nil || err.Error() != "open a pull request from gone into main of acme/shop: head is invalid" {
		t.Errorf("got error %v", err)
	}
}

func TestPullRequestsAreListedByStateAndPage(t *testing.T) {
	w := newWorld(t)
	for _, branch := range []string{"one", "two", "three"} {
		w.pull(branch)
	}
	w.must(w.sim.ClosePullRequest("acme", "shop", 2))
	shop, ctx := w.shop(), t.Context()
	for state, want := range map[string][]int{"": {3, 1}, "open": {3, 1}, "closed": {2}, "all": {3, 2, 1}} {
		var got []int
		for page := 1; page != 0; {
			some, answer, err := shop.PullRequests.List(ctx, "acme", "shop", &github.PullRequestListOptions{State: state, ListOptions: github.ListOptions{Page: page, PerPage: 1}})
			w.must(err)
			for _, p := range some {
				got = append(got, p.GetNumber())
			}
			page = answer.NextPage
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%q: got %v, want %v", state, got, want)
		}
	}
	w.must(w.sim.ReopenPullRequest("acme", "shop", 2))
	if p, err := w.sim.PullRequest("acme", "shop", 2); err != nil || p.State != "open" {
		t.Errorf("got %.300v, error %v", p, err)
	}
}

func TestConflictsAreNotMerged(t *testing.T) {
	w := newWorld(t)
	w.commit("feature", map[string]string{"README.md": "# Feature\n"})
	number, err := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "x", Head: "feature"})
	w.must(err)
	w.commit("main", map[string]string{"README.md": "# Main\n"})
	if _, err := w.sim.Merge("acme", "shop", number); err == nil || err.Error() != "merge acme/shop#1: conflicts in README.md" {
		t.Errorf("got error %v", err)
	}
	p, _, err := w.shop().PullRequests.Get(t.Context(), "acme", "shop", number)
	if err != nil || p.GetMergeable() || p.GetMergeableState() != "dirty" {
		t.Errorf("got %.300v, error %v", p, err)
	}
}

func TestPullRequestIsEdited(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.CreateBranch("acme", "shop", "production", "main"))
	number := w.pull("feature")
	w.settle()
	w.hooks.take(t)
	shop, ctx := w.shop(), t.Context()
	_, _, err := shop.PullRequests.Edit(ctx, "acme", "shop", number, &github.PullRequest{
		Title: new("Better"), Base: &github.PullRequestBranch{Ref: new("production")},
	})
	w.must(err)
	p, _, err := shop.PullRequests.Edit(ctx, "acme", "shop", number, &github.PullRequest{State: new("closed")})
	w.must(err)
	if p.GetTitle() != "Better" || p.GetBase().GetRef() != "production" || p.GetState() != "closed" {
		t.Errorf("got %.300v", p)
	}
	w.settle()
	events := w.hooks.take(t)
	if len(events) != 2 {
		t.Fatalf("got %d events, want edited and closed", len(events))
	}
	edited := events[0].(*github.PullRequestEvent)
	if edited.GetAction() != "edited" || edited.GetChanges().GetBase().GetRef().GetFrom() != "main" || edited.GetChanges().GetTitle().GetFrom() != "Add feature" {
		t.Errorf("got %s with %v", edited.GetAction(), edited.GetChanges())
	}
	if closed := events[1].(*github.PullRequestEvent); closed.GetAction() != "closed" || closed.GetPullRequest().GetMerged() {
		t.Errorf("got %s, merged %t", closed.GetAction(), closed.GetPullRequest().GetMerged())
	}
	_, _, err = shop.PullRequests.Edit(ctx, "acme", "shop", number, &github.PullRequest{State: new("merged")})
	wantError(t, err, http.StatusUnprocessableEntity, "PullRequest state invalid")
}
