package githubsim_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestForcedPushLeavesTheOldCommitThere(t *testing.T) {
	w := newWorld(t)
	base := w.head()
	left := w.commit("main", map[string]string{"a": "a"})
	dir := w.clone()
	w.settle()
	w.hooks.take(t)
	w.must(w.sim.SetRef("acme", "shop", "refs/heads/main", base))
	w.settle()
	push := w.hooks.take(t)[0].(*github.PushEvent)
	if !push.GetForced() || push.GetBefore() != left || push.GetAfter() != base {
		t.Errorf("forced %v from %s to %s", push.GetForced(), push.GetBefore(), push.GetAfter())
	}
	next := w.commit("main", map[string]string{"b": "b"})
	if said := w.git(dir, "fetch", "origin"); !strings.Contains(said, "forced update") {
		t.Errorf("got %s", said)
	}
	other := w.clone("--depth=1")
	w.git(other, "fetch", "-q", "--depth=1", "origin", left)
	if at := w.git(other, "rev-parse", "HEAD", "FETCH_HEAD"); at != next+"\n"+left {
		t.Errorf("got %s", at)
	}
	for ref, sha := range map[string]string{"refs/heads/main": strings.Repeat("1", 40), "refs/pull/1/head": base, "main": base} {
		if err := w.sim.SetRef("acme", "shop", ref, sha); err == nil {
			t.Errorf("%s was set to %s", ref, sha)
		}
	}
}

// treeOf writes a tree as no git would: entries of mode, name and sha, in the order that they come.
func treeOf(entries ...[3]string) []byte {
	var tree strings.Builder
	for _, e := range entries {
		raw, _ := hex.DecodeString(e[2])
		fmt.Fprintf(&tree, "%s %s\x00%s", e[0], e[1], raw)
	}
	return []byte(tree.String())
}

func (w *world) object(kind, content string) string {
	w.t.Helper()
	sha, err := w.sim.AddObject("acme", "shop", kind, []byte(content))
	w.must(err)
	return sha
}

func TestHostileTreesAreServedAsTheyAre(t *testing.T) {
	w := newWorld(t)
	evil := w.object("blob", "#!/bin/sh\necho evil\n")
	tree := func(entries ...[3]string) string { return w.object("tree", string(treeOf(entries...))) }
	hook := tree([3]string{"100755", "post-checkout", evil})
	for name, hostile := range map[string]string{
		".git":   tree([3]string{"40000", ".git", tree([3]string{"40000", "hooks", hook})}),
		"..":     tree([3]string{"40000", "..", tree([3]string{"100644", "outside", evil})}),
		"case":   tree([3]string{"120000", "A", w.object("blob", "..")}, [3]string{"40000", "a", tree([3]string{"100644", "through", evil})}),
		"twice":  tree([3]string{"100644", "x", evil}, [3]string{"120000", "x", evil}),
		"slash":  tree([3]string{"100644", "x/y", evil}),
		"NTFS":   tree([3]string{"40000", "git~1", hook}),
		"nobody": tree([3]string{"100644", "gone", strings.Repeat("2", 40)}),
	} {
		t.Run(name, func(t *testing.T) {
			before := w.head()
			sha, err := w.sim.Commit("acme", "shop", "main", githubsim.Commit{Tree: hostile})
			w.must(err)
			dir := t.TempDir()
			w.git(dir, "init", "-q", "--bare")
			said, err := git(t, dir, "-c", "fetch.fsckObjects=false", "fetch", "-q", "--depth=1", w.remote(w.token(nil), "acme/shop"), sha)
			if name == "nobody" {
				if err == nil {
					t.Error("a file that is not there was fetched")
				}
			} else if err != nil {
				t.Errorf("%v: %s", err, said)
			} else if got := w.git(dir, "rev-parse", "FETCH_HEAD^{tree}"); got != hostile {
				t.Errorf("got tree %s, want %s", got, hostile)
			}
			w.must(w.sim.SetRef("acme", "shop", "refs/heads/main", before))
		})
	}
}

// A commit of any form, whose files the API reads from disk.
func TestCommitIsHandedInAsAnObject(t *testing.T) {
	w := newWorld(t)
	tree := w.object("tree", string(treeOf([3]string{"100644", ".forge.yml", w.object("blob", "image: alpine\n")})))
	sha := w.object("commit", "tree "+tree+"\nparent "+w.head()+"\nauthor Ada <ada@example.com> 1700000000 +0100\ncommitter Bob <b@example.com> 1700000100 -0500\n\nBy hand\n")
	w.must(w.sim.SetRef("acme", "shop", "refs/heads/byhand", sha))
	shop, ctx := w.shop(), t.Context()
	commit, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", "byhand", nil)
	w.must(err)
	if commit.GetSHA() != sha || commit.GetCommit().GetMessage() != "By hand" || commit.GetCommit().GetAuthor().GetEmail() != "ada@example.com" || commit.Author != nil {
		t.Errorf("got %v", commit)
	}
	file, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", ".forge.yml", &github.RepositoryContentGetOptions{Ref: sha})
	w.must(err)
	if text, err := file.GetContent(); err != nil || text != "image: alpine\n" {
		t.Errorf("got %q, %v", text, err)
	}
	next := w.commit("byhand", map[string]string{"more": "x"})
	dir := w.clone("-b", "byhand")
	w.git(dir, "fsck", "--strict")
	if at := w.git(dir, "log", "--format=%H %an", "-2"); at != next+" octocat\n"+sha+" Ada" {
		t.Errorf("got %s", at)
	}
	tag := w.object("tag", "object "+sha+"\ntype commit\ntag v1\ntagger Ada <ada@example.com> 1700000000 +0100\n\nv1\n")
	w.must(w.sim.SetRef("acme", "shop", "refs/tags/v1", tag))
	if refs := w.git(dir, "ls-remote", "--tags", "origin"); refs != tag+"\trefs/tags/v1\n"+sha+"\trefs/tags/v1^{}" {
		t.Errorf("got %s", refs)
	}
}

// made is a repository that git made, with two commits, a tag, a submodule's entry and what archives leave out.
func (w *world) made() (dir string) {
	w.t.Helper()
	dir = w.t.TempDir()
	w.git(dir, "init", "-q", "-b", "trunk")
	for name, text := range map[string]string{".forge.yml": "image: alpine\n", "left-out": "x", ".gitattributes": "left-out export-ignore\n", "f": "1"} {
		w.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	w.git(dir, "add", "-A")
	w.git(dir, "commit", "-q", "-m", "one")
	w.git(dir, "tag", "-m", "the first", "v1")
	w.must(os.WriteFile(filepath.Join(dir, "f"), []byte("2"), 0o600))
	w.git(dir, "commit", "-q", "-a", "-m", "two")
	w.git(dir, "gc", "-q")
	return dir
}

func TestRepositoryThatGitMadeIsServed(t *testing.T) {
	w := newWorld(t)
	made := w.made()
	w.must(w.sim.DeleteRepository("acme", "shop"))
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "shop", Branch: "trunk", GitDir: made}))
	head, err := w.sim.Head("acme", "shop", "trunk")
	w.must(err)
	dir := w.clone()
	if at := w.git(dir, "rev-parse", "HEAD"); at != head || at != w.git(made, "rev-parse", "HEAD") {
		t.Errorf("cloned %s", at)
	}
	if said := w.git(dir, "describe"); !strings.HasPrefix(said, "v1-1-g") {
		t.Errorf("described as %s", said)
	}
	shop, ctx := w.shop(), t.Context()
	file, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", ".forge.yml", &github.RepositoryContentGetOptions{Ref: "v1"})
	w.must(err)
	if text, _ := file.GetContent(); text != "image: alpine\n" {
		t.Errorf("got %q", text)
	}
	compared, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", "v1", head, nil)
	w.must(err)
	if compared.GetAheadBy() != 1 || len(compared.Files) != 1 || compared.Files[0].GetFilename() != "f" {
		t.Errorf("got %v", compared)
	}
	if names := w.archived(head); slices.Contains(names, "left-out") || !slices.Contains(names, "f") {
		t.Errorf("the archive has %q", names)
	}

	// What happens here is built on top, and the folder is left alone.
	w.must(w.sim.CreateBranch("acme", "shop", "topic", "trunk"))
	topic, err := w.sim.Commit("acme", "shop", "topic", githubsim.Commit{Files: map[string]string{"new": "x"}})
	w.must(err)
	number, err := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Head: "topic", Title: "New"})
	w.must(err)
	merged, err := w.sim.Merge("acme", "shop", number)
	w.must(err)
	w.git(dir, "pull", "-q")
	w.git(dir, "fsck", "--strict")
	if at := w.git(dir, "rev-parse", "HEAD", "HEAD^2"); at != merged+"\n"+topic {
		t.Errorf("got %s", at)
	}
	if refs := w.git(made, "for-each-ref", "--format=%(refname)"); refs != "refs/heads/trunk\nrefs/tags/v1" {
		t.Errorf("the folder has %s", refs)
	}
}

func TestGitMovesARepositoryThatItMade(t *testing.T) {
	w := newWorld(t)
	made := w.made()
	w.must(w.sim.DeleteRepository("acme", "shop"))
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "shop", Branch: "trunk", GitDir: made}))
	w.settle()
	w.hooks.take(t)
	w.git(made, "commit", "-q", "--allow-empty", "-m", "three")
	w.git(made, "branch", "other", "v1")
	w.git(made, "tag", "-d", "v1")
	w.must(w.sim.SyncGitDir("acme", "shop", "ada"))
	w.settle()
	var pushes []string
	for _, one := range w.hooks.take(t) {
		push := one.(*github.PushEvent)
		pushes = append(pushes, push.GetRef()+" "+push.GetSender().GetLogin()+" "+push.GetHeadCommit().GetMessage())
	}
	if want := []string{"refs/heads/other ada one", "refs/heads/trunk ada three", "refs/tags/v1 ada "}; !slices.Equal(pushes, want) {
		t.Errorf("got %q, want %q", pushes, want)
	}
	dir := w.clone()
	if at := w.git(dir, "rev-parse", "HEAD"); at != w.git(made, "rev-parse", "HEAD") {
		t.Errorf("cloned %s", at)
	}
	w.must(w.sim.SyncGitDir("acme", "shop", ""))
	w.settle()
	if events := w.hooks.take(t); len(events) != 0 {
		t.Errorf("nothing moved, yet %d webhooks came", len(events))
	}
	if err := w.sim.SyncGitDir("zeta", "other", ""); err == nil {
		t.Error("a repository without a GitDir follows one")
	}
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "none", GitDir: t.TempDir()}); err == nil {
		t.Error("a folder that is no repository was taken")
	}
}
