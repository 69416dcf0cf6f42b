package githubsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"
)

func TestTagsAndDeletionsAreTold(t *testing.T) {
	w := newWorld(t)
	w.pull("feature")
	tip := w.commit("main", map[string]string{"x": "x"})
	w.settle()
	w.hooks.take(t)
	w.must(w.sim.CreateTag("acme", "shop", "v1.0.0", "main"))
	w.must(w.sim.DeleteTag("acme", "shop", "v1.0.0"))
	w.must(w.sim.DeleteBranch("acme", "shop", "feature"))
	w.settle()
	events := w.hooks.take(t)
	tagged, untagged, deleted := events[0].(*github.PushEvent), events[1].(*github.PushEvent), events[2].(*github.PushEvent)
	none := strings.Repeat("0", 40)
	if tagged.GetRef() != "refs/tags/v1.0.0" || !tagged.GetCreated() || tagged.GetAfter() != tip || tagged.GetBefore() != none || tagged.GetHeadCommit().GetID() != tip || len(tagged.Commits) != 0 {
		t.Errorf("got %v", tagged)
	}
	if !untagged.GetDeleted() || untagged.GetAfter() != none || untagged.GetBefore() != tip || untagged.HeadCommit != nil {
		t.Errorf("got %v", untagged)
	}
	if deleted.GetRef() != "refs/heads/feature" || !deleted.GetDeleted() {
		t.Errorf("got %v", deleted)
	}
	if closed := headline(events[3]); closed != "pull_request closed #1" {
		t.Errorf("its pull request: got %s", closed)
	}
	if err := w.sim.ReopenPullRequest("acme", "shop", 1); err == nil {
		t.Error("reopened without its branch")
	}
	w.must(w.sim.CreateBranch("acme", "shop", "feature", "refs/pull/1/head"))
	w.must(w.sim.ReopenPullRequest("acme", "shop", 1))
	for want, err := range map[string]error{
		"tag v2 of acme/shop: no commit at gone":                w.sim.CreateTag("acme", "shop", "v2", "gone"),
		"tag v1.0.0 of acme/shop does not exist":                w.sim.DeleteTag("acme", "shop", "v1.0.0"),
		"branch main of acme/shop is the default one and stays": w.sim.DeleteBranch("acme", "shop", "main"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestBaseAndLabelsChange(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.CreateBranch("acme", "shop", "production", "main"))
	number := w.pull("feature")
	w.settle()
	w.hooks.take(t)
	w.must(w.sim.ChangeBase("acme", "shop", number, "production"))
	w.must(w.sim.Label("acme", "shop", number, "urgent", true))
	w.settle()
	events := w.hooks.take(t)
	edited, labeled := events[0].(*github.PullRequestEvent), events[1].(*github.PullRequestEvent)
	if edited.GetAction() != "edited" || edited.GetChanges().GetBase().GetRef().GetFrom() != "main" || edited.GetPullRequest().GetBase().GetRef() != "production" {
		t.Errorf("got %.300v", edited)
	}
	if labeled.GetAction() != "labeled" || labeled.GetLabel().GetName() != "urgent" || labeled.GetPullRequest().Labels[0].GetName() != "urgent" {
		t.Errorf("got %.300v", labeled)
	}
	if err := w.sim.ChangeBase("acme", "shop", number, "gone"); err == nil || err.Error() != "change the base of acme/shop#1: there is no branch gone" {
		t.Errorf("got error %v", err)
	}
}

func TestCommitsKnowTheirPullRequests(t *testing.T) {
	w := newWorld(t)
	base := w.head()
	number := w.pull("feature")
	head, err := w.sim.Head("acme", "shop", "feature")
	w.must(err)
	shop, ctx := w.shop(), t.Context()
	find := func(ref string) []*github.PullRequest {
		list, _, err := shop.PullRequests.ListPullRequestsWithCommit(ctx, "acme", "shop", ref, nil)
		w.must(err)
		return list
	}
	if got := find(head); len(got) != 1 || got[0].GetNumber() != number {
		t.Errorf("an open one: got %.300v", got)
	}
	merged, err := w.sim.Merge("acme", "shop", number)
	w.must(err)
	for _, sha := range []string{head, merged} {
		if got := find(sha); len(got) != 1 || got[0].GetMergedAt().IsZero() {
			t.Errorf("a merged one, at %s: got %.300v", sha, got)
		}
	}
	if got := find(base); len(got) != 0 {
		t.Errorf("what was there before: got %.300v", got)
	}
	_, _, err = shop.PullRequests.ListPullRequestsWithCommit(ctx, "acme", "shop", "gone", nil)
	wantError(t, err, http.StatusUnprocessableEntity, "No commit found for SHA: gone")
}

func TestComparisonsListThreeHundredFilesAndPullRequestsMore(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{}
	for i := range 320 {
		files[fmt.Sprintf("f/%03d", i)] = "x"
	}
	w.commit("feature", files)
	number := w.pull("feature") // one more
	shop, ctx := w.shop(), t.Context()
	diff, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", "main", "feature", nil)
	if err != nil || len(diff.Files) != 300 {
		t.Errorf("got %d files, error %v", len(diff.Files), err)
	}
	got := 0
	for page := 1; page != 0; {
		some, answer, err := shop.PullRequests.ListFiles(ctx, "acme", "shop", number, &github.ListOptions{PerPage: 100, Page: page})
		w.must(err)
		got += len(some)
		page = answer.NextPage
	}
	if got != 321 {
		t.Errorf("got %d files of the pull request", got)
	}
}
