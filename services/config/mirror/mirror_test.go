package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// odd has what archives lose and file systems dislike.
func (r *rig) odd() (sha string) {
	r.t.Helper()
	long := strings.Repeat("long/", 60) + "name"
	if err := os.Symlink("/dev/null", filepath.Join(r.work, "null")); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.work, "run"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	return r.commit(map[string]string{
		".gitattributes": "secret export-ignore\nversion export-subst\n*.bat eol=crlf\n*.utf16 working-tree-encoding=UTF-16LE\nid ident\n*.up filter=up\n",
		"secret":         "kept\n", "version": "$Format:%H$\n", "a.bat": "one\ntwo\n", "b.utf16": "h\x00i\x00\n\x00", "id": "$Id$\n", "c.up": "low\n",
		"Case": "upper\n", "case": "lower\n", long: "x", "br\xe4ve \n name": "latin\n", "empty": "",
	})
}

func TestCheckoutIsWhatGitChecksOut(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1\n"})
	sha := r.odd()
	want := t.TempDir()
	run(t, "", "git", "clone", "-q", r.bare, want)
	for _, history := range []int{0, 1, 2, mirror.All} {
		dir := r.mustCheckout(mirror.Want{SHA: sha, Base: "main", History: history})
		if out := run(t, "", "diff", "-r", "--no-dereference", "--exclude=.git", want, dir); out != "" {
			t.Errorf("history %d: %s", history, out)
		}
		if status := git(t, dir, "status", "--porcelain"); status != "" {
			t.Errorf("history %d: status %q", history, status)
		}
		if head := git(t, dir, "rev-parse", "HEAD"); head != sha {
			t.Errorf("history %d: HEAD is %s", history, head)
		}
		if info, err := os.Stat(filepath.Join(dir, "run")); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("history %d: run cannot be executed: %v", history, err)
		}
		git(t, dir, "fsck", "--strict", "--no-dangling")
		if remote := git(t, dir, "remote", "get-url", "origin"); remote != r.remote().URL || strings.Contains(read(t, dir+"/.git/config"), "good") {
			t.Errorf("history %d: origin is %s", history, remote)
		}
	}
}

func TestHistoryIsAsLongAsWanted(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.commit(map[string]string{"n": strconv.Itoa(i)})
		r.git("tag", fmt.Sprintf("v0.%d", i))
	}
	r.git("tag", "-a", "-m", "the first", "v1")
	r.push()
	r.git("checkout", "-q", "-b", "feature", "HEAD~1")
	sha := r.commit(map[string]string{"f": "x"})
	for _, c := range []struct {
		history       int
		commits       string
		describe, log string
		shallow       bool
	}{
		{0, "1", "", "", true},
		{2, "2", "v0.3-1-g" + sha[:7], "v0.3", true},
		{mirror.All, "5", "v0.3-1-g" + sha[:7], "v0.0 v0.1 v0.2 v0.3 v0.4 v1", false},
	} {
		dir := r.mustCheckout(mirror.Want{SHA: sha, Base: "main", History: c.history})
		if got := git(t, dir, "rev-list", "--count", "HEAD"); got != c.commits {
			t.Errorf("history %d: %s commits", c.history, got)
		}
		if got := git(t, dir, "rev-parse", "--is-shallow-repository") == "true"; got != c.shallow {
			t.Errorf("history %d: shallow is %v", c.history, got)
		}
		if c.describe == "" {
			continue
		}
		if got := git(t, dir, "describe", "--tags"); got != c.describe {
			t.Errorf("history %d: describes itself as %s", c.history, got)
		}
		if got := git(t, dir, "diff", "--stat", "origin/main"); !strings.Contains(got, "2 files changed") {
			t.Errorf("history %d: differs from main by %s", c.history, got)
		}
	}
	dir := r.mustCheckout(mirror.Want{SHA: sha, Base: "main", History: mirror.All})
	if got := git(t, dir, "describe", "origin/main"); got != "v1" {
		t.Errorf("the base describes itself as %s", got)
	}
}

func TestCommitIsFetchedOnceAndAlone(t *testing.T) {
	r := newRig(t)
	sha := r.commit(map[string]string{"a": "1"})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := r.Checkout(t.Context(), r.remote(), mirror.Want{SHA: sha}, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := r.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestCommitThatAForcePushLeftIsFound(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1"})
	gone := r.commit(map[string]string{"a": "2"})
	r.git("reset", "-q", "--hard", "HEAD~1")
	r.commit(map[string]string{"a": "3"})
	for _, history := range []int{0, mirror.All} {
		dir := r.mustCheckout(mirror.Want{SHA: gone, Base: "main", History: history})
		if got := read(t, dir+"/a"); got != "2" {
			t.Errorf("history %d: got %q", history, got)
		}
	}
}

func TestForksCommitIsFoundByItsPullRequest(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1"})
	run(t, r.bare, "git", "config", "uploadpack.allowAnySHA1InWant", "false")
	r.git("checkout", "-q", "-b", "fork")
	r.git("commit", "-q", "--allow-empty", "-m", "of a fork")
	sha := r.git("rev-parse", "HEAD")
	r.git("push", "-q", r.bare, "HEAD:refs/pull/5/head")
	if dir := r.mustCheckout(mirror.Want{SHA: sha, PullRequest: 5}); git(t, dir, "rev-parse", "HEAD") != sha {
		t.Error("another commit")
	}
	_, err := r.checkout(mirror.Want{SHA: strings.Repeat("1", 40), PullRequest: 5})
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestTokenThatIsRejectedIsReplacedOnce(t *testing.T) {
	r := newRig(t)
	sha := r.commit(map[string]string{"a": "1"})
	r.given.Store("old")
	r.mustCheckout(mirror.Want{SHA: sha})
	r.token.Store("never")
	_, err := r.checkout(mirror.Want{SHA: strings.Repeat("1", 40)})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "token") {
		t.Errorf("got %v", err)
	}
	for _, secret := range []string{"good", "old"} {
		if out, _ := exec.CommandContext(t.Context(), "grep", "-rlF", secret, r.dir).Output(); len(out) > 0 {
			t.Errorf("the token %s is in %s", secret, out)
		}
	}
}

func TestBrokenMirrorIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"a pack is cut": func(t *testing.T, path string) {
			packs, err := filepath.Glob(path + "/objects/pack/*.pack")
			if err != nil || len(packs) == 0 {
				t.Fatal(err, packs)
			}
			if err := errors.Join(os.Chmod(packs[0], 0o600), os.Truncate(packs[0], 40)); err != nil {
				t.Fatal(err)
			}
		},
		"a pack is gone": func(t *testing.T, path string) {
			packs, _ := filepath.Glob(path + "/objects/pack/*.pack")
			if err := os.Remove(packs[0]); err != nil {
				t.Fatal(err)
			}
		},
		"git's locks are left": func(t *testing.T, path string) {
			for _, name := range []string{"shallow.lock", "packed-refs.lock", "objects/pack/tmp_pack_x", "HEAD.lock"} {
				if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"HEAD alone is there, as git init begins": func(t *testing.T, path string) {
			if err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700), os.WriteFile(path+"/HEAD", []byte("ref: refs/heads/main\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		},
		"HEAD is gone": func(t *testing.T, path string) {
			if err := os.Remove(path + "/HEAD"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.commit(map[string]string{"a": strings.Repeat("1", 4000)})
			first := r.commit(map[string]string{"b": "x"})
			r.mustCheckout(mirror.Want{SHA: first, History: mirror.All})
			damage(t, filepath.Join(r.dir, "7.git"))
			second := r.commit(map[string]string{"b": "y"})
			for _, sha := range []string{second, first} {
				dir, err := r.checkout(mirror.Want{SHA: sha, History: mirror.All})
				if fault.Is(err, fault.Unavailable) { // who asked first hears of it, who asks again gets it
					dir, err = r.checkout(mirror.Want{SHA: sha, History: mirror.All})
				}
				if err != nil {
					t.Fatal(err)
				}
				git(t, dir, "fsck", "--strict", "--no-dangling")
			}
		})
	}
}

func TestGitHubThatFailsIsAskedAgain(t *testing.T) {
	r := newRig(t)
	sha := r.commit(map[string]string{"a": "1"})
	down := func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "bad gateway", http.StatusBadGateway)
		return true
	}
	r.refuse.Store(&down)
	if _, err := r.checkout(mirror.Want{SHA: sha}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "502") {
		t.Errorf("got %v", err)
	}
	gone := func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }
	r.refuse.Store(&gone)
	if _, err := r.checkout(mirror.Want{SHA: sha}); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	r.refuse.Store(nil)
	r.mustCheckout(mirror.Want{SHA: sha})
}

func TestHostileTreesAreRefused(t *testing.T) {
	for _, name := range []string{".git", ".GIT", "git~1", "..", ".git "} {
		r := newRig(t)
		blob := strings.TrimSpace(run(t, r.work, "sh", "-c", "echo evil | git hash-object -w --stdin"))
		tree := strings.TrimSpace(run(t, r.work, "sh", "-c", fmt.Sprintf(`printf '100755 blob %s\thooks\n' | git mktree`, blob)))
		top := strings.TrimSpace(run(t, r.work, "sh", "-c", fmt.Sprintf(`printf '040000 tree %s\t%s\n' | git mktree`, tree, name)))
		sha := r.git("commit-tree", "-m", "evil", top)
		r.git("-c", "transfer.fsckObjects=false", "push", "-q", r.bare, sha+":refs/heads/evil")
		_, err := r.checkout(mirror.Want{SHA: sha})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestLeastRecentlyUsedMirrorGoesFirst(t *testing.T) {
	r := newRig(t)
	sha := r.commit(map[string]string{"a": strings.Repeat("noise ", 1000)})
	use := func(id int64) {
		remote := r.remote()
		remote.ID = id
		if err := r.Checkout(t.Context(), remote, mirror.Want{SHA: sha}, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (names []string) {
		all, err := filepath.Glob(r.dir + "/*.git")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			names = append(names, filepath.Base(path))
		}
		return names
	}
	use(1)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(r.dir+"/1.git/HEAD", old, old); err != nil {
		t.Fatal(err)
	}
	use(2)
	r.open(1) // too small for any
	use(3)
	if got := there(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	left, err := os.ReadDir(r.dir + "/scratch")
	if err != nil || len(left) != 0 {
		t.Errorf("scratch: %v, %v", left, err)
	}
}

func TestCheckoutThatIsBrokenOffLeavesNothing(t *testing.T) {
	r := newRig(t)
	sha := r.commit(map[string]string{"a": "1"})
	hangs, hung := make(chan struct{}), make(chan struct{})
	hang := func(http.ResponseWriter, *http.Request) bool { close(hung); <-hangs; return true }
	r.refuse.Store(&hang)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Checkout(ctx, r.remote(), mirror.Want{SHA: sha}, io.Discard) }()
	<-hung
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hangs)
	r.refuse.Store(nil)
	r.mustCheckout(mirror.Want{SHA: sha})
}

func TestMergeIsMadeAsGitHubWouldMakeIt(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1\n", "b": "1\n"})
	r.git("checkout", "-q", "-b", "feature")
	head := r.commit(map[string]string{"a": "2\n"})
	r.git("checkout", "-q", "main")
	base := r.commit(map[string]string{"b": "2\n"})
	r.mustCheckout(mirror.Want{SHA: base}) // without history
	want := mirror.Want{SHA: head, Into: base}
	merged, err := r.Merge(t.Context(), r.remote(), want)
	if err != nil {
		t.Fatal(err)
	}
	fetches := r.fetches.Load()
	if _, err := r.Merge(t.Context(), r.remote(), want); err != nil || r.fetches.Load() != fetches {
		t.Errorf("GitHub is asked again for what is there: %v", err)
	}
	for _, history := range []int{0, 2} {
		want.History = history
		dir := r.mustCheckout(want)
		if read(t, dir+"/a") != "2\n" || read(t, dir+"/b") != "2\n" {
			t.Error("the merge lacks something")
		}
		if got := git(t, dir, "rev-parse", "HEAD"); got != merged {
			t.Errorf("HEAD is %s, want %s", got, merged)
		}
		if status := git(t, dir, "status", "--porcelain"); status != "" {
			t.Errorf("status %q", status)
		}
	}
	if got := git(t, r.mustCheckout(want), "log", "-1", "--format=%P %s"); got != base+" "+head+" Merge "+head+" into "+base {
		t.Errorf("the merge is %s", got)
	}
	if err := os.RemoveAll(r.dir + "/7.git"); err != nil {
		t.Fatal(err)
	}
	if again, err := r.Merge(t.Context(), r.remote(), want); err != nil || again != merged {
		t.Errorf("made again it is %s, %v, was %s", again, err, merged)
	}
	r.git("merge", "-q", "--no-edit", "feature")
	later := r.commit(nil)
	if ahead, err := r.Merge(t.Context(), r.remote(), mirror.Want{SHA: later, Into: base}); err != nil || ahead != later {
		t.Errorf("of a commit that has the base: %s, %v", ahead, err)
	}
	if _, err := r.Merge(t.Context(), r.remote(), mirror.Want{SHA: head, Into: strings.Repeat("1", 40)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a base that GitHub does not have: %v", err)
	}
}

func TestConflictNamesItsFiles(t *testing.T) {
	r := newRig(t)
	r.commit(map[string]string{"a": "1\n", "b \xe4\n": "1\n", "c": "1\n"})
	r.git("checkout", "-q", "-b", "feature")
	head := r.commit(map[string]string{"a": "2\n", "b \xe4\n": "2\n", "c": "2\n"})
	r.git("checkout", "-q", "main")
	base := r.commit(map[string]string{"a": "3\n", "b \xe4\n": "3\n"})
	_, err := r.Merge(t.Context(), r.remote(), mirror.Want{SHA: head, Into: base})
	conflict, ok := errors.AsType[*mirror.ConflictError](err)
	if !ok || !slices.Equal(conflict.Files, []string{"a", "b \xe4\n"}) {
		t.Errorf("got %v", err)
	}
}
