package githubsim_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestReadsAreLaterThanWebhooks(t *testing.T) {
	w := newWorld(t)
	old, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	shop, ctx := w.shop(), t.Context()
	w.settle()
	w.hooks.take(t)
	w.clock.advance(time.Second)
	w.sim.SetLag(5 * time.Second)
	number := w.pull("late")
	sha := w.commit("main", map[string]string{"late": "x"})
	w.must(w.sim.Fork("acme", "shop", "eve"))
	forks, err := w.sim.Commit("eve", "shop", "main", githubsim.Commit{Author: "eve", Files: map[string]string{"b": "x"}})
	w.must(err)
	w.settle()
	if events := w.hooks.take(t); len(events) != 4 {
		t.Errorf("%d webhooks arrived, want 4: a new branch, a push, a pull request, a push", len(events))
	}

	reads := map[string]struct {
		call   func() error
		status int
	}{
		"contents": {func() error {
			_, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", ".forge.yml", &github.RepositoryContentGetOptions{Ref: sha})
			return err
		}, http.StatusNotFound},
		"commit": {func() error { _, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", sha, nil); return err }, http.StatusUnprocessableEntity},
		"a fork's commit": {func() error {
			_, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", forks, nil)
			return err
		}, http.StatusUnprocessableEntity},
		"compare": {func() error {
			_, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", old, sha, nil)
			return err
		}, http.StatusNotFound},
		"tree":         {func() error { _, _, err := shop.Git.GetTree(ctx, "acme", "shop", sha, false); return err }, http.StatusNotFound},
		"pull request": {func() error { _, _, err := shop.PullRequests.Get(ctx, "acme", "shop", number); return err }, http.StatusNotFound},
		"its files": {func() error {
			_, _, err := shop.PullRequests.ListFiles(ctx, "acme", "shop", number, nil)
			return err
		}, http.StatusNotFound},
		"permission": {func() error {
			_, _, err := shop.Repositories.GetPermissionLevel(ctx, "acme", "shop", "eve")
			return err
		}, http.StatusNotFound},
		"archive": {func() error {
			_, _, err := shop.Repositories.GetArchiveLink(ctx, "acme", "shop", github.Tarball, &github.RepositoryContentGetOptions{Ref: sha}, 0)
			if err != nil {
				return &github.ErrorResponse{Response: &http.Response{StatusCode: http.StatusNotFound}}
			}
			return nil
		}, http.StatusNotFound},
	}
	tip := func() string {
		ref, _, err := shop.Git.GetRef(ctx, "acme", "shop", "heads/main")
		w.must(err)
		return ref.GetObject().GetSHA()
	}
	for name, read := range reads {
		if got := statusOf(read.call()); got != read.status {
			t.Errorf("%s at once: %d, want %d", name, got, read.status)
		}
	}
	if got := tip(); got != old {
		t.Errorf("the branch is at %s at once, want %s", got, old)
	}
	w.clock.advance(5 * time.Second)
	for name, read := range reads {
		if err := read.call(); err != nil {
			t.Errorf("%s later: %v", name, err)
		}
	}
	if got := tip(); got != sha {
		t.Errorf("the branch is at %s later, want %s", got, sha)
	}
}

func TestLatePullRequestHasTheHeadItHad(t *testing.T) {
	w := newWorld(t)
	number, shop := w.pull("topic"), w.shop()
	before, err := w.sim.Head("acme", "shop", "topic")
	w.must(err)
	head := func() string {
		pull, _, err := shop.PullRequests.Get(t.Context(), "acme", "shop", number)
		w.must(err)
		return pull.GetHead().GetSHA()
	}
	w.clock.advance(time.Second)
	w.sim.SetLag(5 * time.Second)
	after := w.commit("topic", map[string]string{"more": "x"})
	if got := head(); got != before {
		t.Errorf("head %s at once, want %s", got, before)
	}
	w.clock.advance(5 * time.Second)
	if got := head(); got != after {
		t.Errorf("head %s later, want %s", got, after)
	}
}

func TestLagConcernsNothingThatWasThereBefore(t *testing.T) {
	w := newWorld(t)
	number, shop := w.pull("topic"), w.shop()
	w.clock.advance(time.Second)
	w.sim.SetLag(time.Hour)
	if _, _, err := shop.PullRequests.Get(t.Context(), "acme", "shop", number); err != nil {
		t.Error(err)
	}
	if _, _, err := shop.Repositories.GetCommit(t.Context(), "acme", "shop", "topic", nil); err != nil {
		t.Error(err)
	}
	w.commit("topic", map[string]string{"more": "x"})
	w.sim.SetLag(0)
	if _, _, err := shop.Repositories.GetCommit(t.Context(), "acme", "shop", w.headOf("topic"), nil); err != nil {
		t.Errorf("the lag has ended: %v", err)
	}
}

func TestTreesAreListed(t *testing.T) {
	w := newWorld(t)
	shop, sha := w.shop(), w.headOf("main")
	entries := func(name string, recursive bool) (paths []string, tree *github.Tree) {
		tree, _, err := shop.Git.GetTree(t.Context(), "acme", "shop", name, recursive)
		w.must(err)
		for _, one := range tree.Entries {
			paths = append(paths, one.GetPath()+" "+one.GetType())
		}
		return paths, tree
	}
	top := []string{".forge.yml blob", "README.md blob", "ci tree"}
	got, tree := entries(sha, false)
	if !slices.Equal(got, top) || tree.GetTruncated() {
		t.Errorf("by a commit: %v", got)
	}
	if got, _ := entries(tree.GetSHA(), false); !slices.Equal(got, top) {
		t.Errorf("by its own sha: %v", got)
	}
	if got, _ := entries("main", true); !slices.Equal(got, append(top, "ci/test.sh blob")) {
		t.Errorf("with what is below: %v", got)
	}
	if got, _ := entries(tree.Entries[2].GetSHA(), false); !slices.Equal(got, []string{"test.sh blob"}) {
		t.Errorf("of a folder: %v", got)
	}
	_, _, err := shop.Git.GetTree(t.Context(), "acme", "shop", "0123456789012345678901234567890123456789", false)
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func (w *world) headOf(branch string) string {
	w.t.Helper()
	sha, err := w.sim.Head("acme", "shop", branch)
	w.must(err)
	return sha
}
