package githubsim_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestAnnotatedTagIsAnObjectOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.CreateTag("acme", "shop", "light", "main"))
	w.settle()
	w.hooks.take(t)
	w.must(w.sim.CreateAnnotatedTag("acme", "shop", "v1.0", "main", "The first one"))
	w.settle()
	push := w.hooks.take(t)[0].(*github.PushEvent)

	dir := w.clone()
	object := w.git(dir, "rev-parse", "v1.0")
	if object == w.head() || w.git(dir, "rev-parse", "v1.0^{commit}") != w.head() || w.git(dir, "cat-file", "-t", "v1.0") != "tag" {
		t.Errorf("v1.0 is at %s, main at %s", object, w.head())
	}
	if said := w.git(dir, "tag", "-n", "--list", "--format=%(refname:short) %(objecttype) %(taggername) %(subject)"); said != "light commit  Initial commit\nv1.0 tag octocat The first one" {
		t.Errorf("got %q", said)
	}
	w.commit("main", map[string]string{"b": "b"})
	w.git(dir, "pull", "-q")
	if said := w.git(dir, "describe"); said != "v1.0-1-g"+w.head()[:7] {
		t.Errorf("described as %s", said)
	}
	w.git(dir, "fsck", "--strict")

	if push.GetAfter() != object || push.GetHeadCommit().GetID() == object {
		t.Errorf("the push says %s, with head commit %s", push.GetAfter(), push.GetHeadCommit().GetID())
	}
	shop, ctx := w.shop(), t.Context()
	ref, _, err := shop.Git.GetRef(ctx, "acme", "shop", "tags/v1.0")
	w.must(err)
	if ref.GetObject().GetType() != "tag" || ref.GetObject().GetSHA() != object {
		t.Errorf("got %v", ref)
	}
	tag, _, err := shop.Git.GetTag(ctx, "acme", "shop", object)
	w.must(err)
	commit, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", "v1.0", nil)
	w.must(err)
	if tag.GetMessage() != "The first one" || tag.GetObject().GetSHA() != commit.GetSHA() {
		t.Errorf("got %v at %s", tag, commit.GetSHA())
	}
	_, _, err = shop.Git.GetTag(ctx, "acme", "shop", w.head())
	wantError(t, err, http.StatusNotFound, "Not Found")
	if err := w.sim.CreateAnnotatedTag("acme", "shop", "v1.0", "main", "again"); err == nil {
		t.Error("it was made twice")
	}

	w.must(w.sim.DeleteTag("acme", "shop", "v1.0"))
	w.settle()
	events := w.hooks.take(t)
	if push = events[len(events)-1].(*github.PushEvent); push.GetBefore() != object || !push.GetDeleted() {
		t.Errorf("the tag is deleted from %s", push.GetBefore())
	}
	w.must(w.sim.CreateTag("acme", "shop", "v1.0", "main"))
	if refs := w.git(dir, "ls-remote", "origin", "v1.0"); !strings.HasPrefix(refs, w.head()) {
		t.Errorf("a light tag of that name is at %s", refs)
	}
}

func TestAnnotatedTagIsLateToo(t *testing.T) {
	w := newWorld(t)
	w.clock.advance(time.Second)
	w.sim.SetLag(5 * time.Second)
	w.must(w.sim.CreateAnnotatedTag("acme", "shop", "v1", "main", "v1"))
	dir := w.clone()
	if refs := w.git(dir, "ls-remote", "--tags", "origin"); refs != "" {
		t.Errorf("at once: %s", refs)
	}
	w.clock.advance(5 * time.Second)
	w.git(dir, "fetch", "-q", "origin", "tag", "v1")
}

func TestSubmodulesAreCommitsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(newRepository("acme", "parts")))
	parts, err := w.sim.Head("acme", "parts", "main")
	w.must(err)
	sha, err := w.sim.Commit("acme", "shop", "main", githubsim.Commit{
		Modules: map[string]string{"lib/parts": parts},
		Files:   map[string]string{".gitmodules": "[submodule \"parts\"]\n\tpath = lib/parts\n\turl = ../parts.git\n"},
	})
	w.must(err)
	dir := w.clone("--recurse-submodules")
	w.git(dir, "fsck", "--strict")
	if said := w.git(dir, "submodule", "status"); !strings.HasPrefix(said, parts+" lib/parts") {
		t.Errorf("got %q", said)
	}

	shop, ctx := w.shop(), t.Context()
	one, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", "lib/parts", nil)
	w.must(err)
	if one.GetType() != "submodule" || one.GetSHA() != parts || one.GetSubmoduleGitURL() != "../parts.git" {
		t.Errorf("got %v", one)
	}
	tree, _, err := shop.Git.GetTree(ctx, "acme", "shop", sha, true)
	w.must(err)
	if at := slices.IndexFunc(tree.Entries, func(e *github.TreeEntry) bool { return e.GetPath() == "lib/parts" }); at < 0 ||
		tree.Entries[at].GetType() != "commit" || tree.Entries[at].GetMode() != "160000" || tree.Entries[at].GetSHA() != parts {
		t.Errorf("got %v", tree.Entries)
	}
	if names := w.archived(sha); !slices.Contains(names, "lib/parts/") {
		t.Errorf("the archive has %q", names)
	}
}

// archived lists what the archive of acme/shop at a commit has.
func (w *world) archived(sha string) []string {
	w.t.Helper()
	address, _, err := w.shop().Repositories.GetArchiveLink(w.t.Context(), "acme", "shop", github.Tarball, &github.RepositoryContentGetOptions{Ref: sha}, 0)
	w.must(err)
	entries, _ := untar(w.t, address)
	var names []string
	for name := range entries {
		_, name, _ = strings.Cut(name, "/") // all is below one folder
		names = append(names, name)
	}
	return names
}
