package config

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// withMirrors keeps them and what is made from them.
func withMirrors(t testing.TB) func(*githubsim.Config, *Deps) {
	return func(_ *githubsim.Config, deps *Deps) {
		deps.Blobs = blobsIn(t, t.TempDir())
		mirrors, err := mirror.New(t.Context(), mirror.Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Log: kittest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		deps.Mirrors = mirrors
	}
}

// checkout is the names in a checkout, and the content of files.
func (w *world) checkout(req *configv1.GetSourceRequest) (map[string]string, error) {
	w.t.Helper()
	req.Repository, req.InstallationId = w.repo, w.install
	if req.GetCheckout() == nil {
		req.Checkout = &configv1.Source{}
	}
	stream, err := configv1.NewSourceServiceClient(w.as("scheduler")).GetSource(w.t.Context(), req)
	if err != nil {
		return nil, err
	}
	var whole bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		whole.Write(part.GetData())
	}
	unzipped, err := zstd.NewReader(&whole)
	if err != nil {
		w.t.Fatal(err)
	}
	defer unzipped.Close()
	found := map[string]string{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			w.t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			w.t.Fatal(err)
		}
		found[header.Name] = string(content)
	}
}

func TestCheckoutComesFromGit(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	sha := w.commit(githubsim.Commit{Files: map[string]string{".gitattributes": "kept export-ignore\n", "kept": "yes\n"}})
	found, err := w.checkout(&configv1.GetSourceRequest{Sha: sha, Base: "main", Checkout: &configv1.Source{History: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if found["tree/kept"] != "yes\n" || found["git/HEAD"] != sha+"\n" || !strings.Contains(found["git/packed-refs"], sha+" refs/remotes/origin/main\n") {
		t.Errorf("found %q", found)
	}
	for name, content := range found {
		if strings.Contains(content, "ghs_") || strings.Contains(content, "x-access-token") {
			t.Errorf("%s holds a token", name)
		}
	}
	w.front.answers("/", http.StatusInternalServerError, "down")
	if _, err := w.checkout(&configv1.GetSourceRequest{Sha: sha, Base: "main", Checkout: &configv1.Source{History: 2}}); err != nil {
		t.Errorf("what was made once is made again: %v", err)
	}
}

// What is kept for a runner that takes files from the pack is not given to another.
func TestFilesArePackedForWhomTakesThem(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	sha := w.commit(githubsim.Commit{Files: map[string]string{"kept": "yes\n"}})
	for _, packed := range []bool{true, false, true} {
		found, err := w.checkout(&configv1.GetSourceRequest{Sha: sha, Packed: packed})
		if want := map[bool]string{false: "yes\n"}[packed]; err != nil || found["tree/kept"] != want {
			t.Errorf("packed %t: %q, %v", packed, found["tree/kept"], err)
		}
	}
}

// A source that was prepared needs nothing more of GitHub.
func TestSourceIsPrepared(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	sha := w.commit(githubsim.Commit{Files: map[string]string{"kept": "yes\n"}})
	req := &configv1.GetSourceRequest{Repository: w.repo, InstallationId: w.install, Sha: sha, Checkout: &configv1.Source{}}
	sources := configv1.NewSourceServiceClient(w.as("scheduler"))
	if _, err := sources.PrepareSource(t.Context(), &configv1.PrepareSourceRequest{Source: req}); err != nil {
		t.Fatal(err)
	}
	w.front.answers("/", http.StatusInternalServerError, "down")
	if found, err := w.checkout(req); err != nil || found["tree/kept"] != "yes\n" {
		t.Errorf("found %q, %v", found, err)
	}
	for sha, kind := range map[string]fault.Kind{sha[:12]: fault.Invalid, strings.Repeat("1", 40): fault.Unavailable} {
		req.Sha = sha
		_, err := sources.PrepareSource(t.Context(), &configv1.PrepareSourceRequest{Source: req})
		w.wantFault(err, kind, "")
	}
}

func TestCheckoutRefusals(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	sha := w.head()
	nobody := strings.Repeat("1", 40)
	for _, c := range []struct {
		name string
		req  *configv1.GetSourceRequest
		kind fault.Kind
		text string
	}{
		{"no such commit", &configv1.GetSourceRequest{Sha: nobody}, fault.NotFound, "acme/app: GitHub has no such commit"},
		{"a short name", &configv1.GetSourceRequest{Sha: sha[:12]}, fault.Invalid, "sha"},
		{"two histories", &configv1.GetSourceRequest{Sha: sha, Checkout: &configv1.Source{History: 1, FullHistory: true}}, fault.Invalid, "history"},
		{"less than none", &configv1.GetSourceRequest{Sha: sha, Checkout: &configv1.Source{History: -1}}, fault.Invalid, "history"},
		{"into a short name", &configv1.GetSourceRequest{Sha: sha, IntoSha: "main"}, fault.Invalid, "sha"},
		{"into nobody's", &configv1.GetSourceRequest{Sha: sha, IntoSha: nobody}, fault.NotFound, "no such commit"},
	} {
		_, err := w.checkout(c.req)
		w.wantFault(err, c.kind, c.text)
	}
	w.repo = &eventv1.Repository{Owner: "acme", Name: "app"}
	_, err := w.checkout(&configv1.GetSourceRequest{Sha: sha})
	w.wantFault(err, fault.Invalid, "lacks its id")
}

func TestConfigWithoutMirrorsSaysSo(t *testing.T) {
	w := newWorld(t)
	_, err := w.checkout(&configv1.GetSourceRequest{Sha: w.head()})
	w.wantFault(err, fault.Unavailable, "keeps no mirrors")
}

func TestMergeAnswersWithItsCommitOrItsConflicts(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	base := w.head()
	if err := w.sim.CreateBranch("acme", "app", "feature", "main"); err != nil {
		t.Fatal(err)
	}
	head, err := w.sim.Commit("acme", "app", "feature", githubsim.Commit{Files: map[string]string{"a": "1\n"}})
	if err != nil {
		t.Fatal(err)
	}
	moved := w.commit(githubsim.Commit{Files: map[string]string{"b": "1\n"}})
	against := w.commit(githubsim.Commit{Files: map[string]string{"a": "2\n"}})
	merge := func(into string) *configv1.MergeResponse {
		t.Helper()
		answer, err := configv1.NewSourceServiceClient(w.as("scheduler")).Merge(t.Context(), &configv1.MergeRequest{
			Repository: w.repo, InstallationId: w.install, Sha: head, IntoSha: into,
		})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := merge(base); got.GetSha() != head {
		t.Errorf("into its own base: %v", got)
	}
	merged := merge(moved)
	if merged.GetSha() == "" || merged.GetSha() == head || merged.GetConflicts() != "" {
		t.Errorf("into a base that moved: %v", merged)
	}
	found, err := w.checkout(&configv1.GetSourceRequest{Sha: head, IntoSha: moved})
	if err != nil || found["tree/a"] != "1\n" || found["tree/b"] != "1\n" || found["git/HEAD"] != merged.GetSha()+"\n" {
		t.Errorf("checked out: %q, %v", found, err)
	}
	if got := merge(against); got.GetSha() != "" || got.GetConflicts() != "conflicts in a" {
		t.Errorf("against: %v", got)
	}
}

func TestAddressesOfSubmodules(t *testing.T) {
	c := checkouts{pages: "https://github.com"}
	for address, want := range map[string]string{
		"https://github.com/octo/lib.git": "octo/lib", "https://github.com/octo/lib": "octo/lib", "git@github.com:octo/lib.git": "octo/lib",
		"ssh://git@github.com/octo/lib.git": "octo/lib", "git://github.com/octo/lib": "octo/lib", "https://user:secret@github.com/octo/lib/": "octo/lib",
		"https://gitlab.com/octo/lib.git": "", "https://github.com.evil.com/octo/lib": "", "http://169.254.169.254/latest/meta-data": "", "/etc": "",
		"file:///etc/passwd": "", "ext::sh -c id": "", "https://github.com/octo": "", "https://github.com/octo/lib/wiki": "", "": "", "git@evil.com:octo/lib": "",
		"-oProxyCommand=id": "", "https://github.com": "",
	} {
		owner, name, err := c.repositoryAt(address)
		if got := strings.TrimSuffix(owner+"/"+name, "/"); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", address, got, err)
		}
	}
}

// The attack: a fork, or a repository that the App is not installed on, names a
// private repository as its submodule.
func TestForksGetNoPrivateSubmodule(t *testing.T) {
	w := newWorld(t, withMirrors(t))
	for name, public := range map[string]bool{"private": false, "public": true} {
		if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: name, Public: public, Files: map[string]string{"a": name}}); err != nil {
			t.Fatal(err)
		}
	}
	g := grant{installation: w.install, repository: w.repo.GetId(), owner: "acme", name: "app", room: roomConfig}
	for _, c := range []struct {
		name  string
		fork  bool
		there bool
	}{{"private", false, true}, {"private", true, false}, {"public", false, true}, {"public", true, true}} {
		remote, err := w.service.checkouts.submodule(t.Context(), g, w.deps.GitHub.PagesURL+"/acme/"+c.name, c.fork)
		if err != nil {
			t.Fatal(err)
		}
		head, err := w.sim.Head("acme", c.name, "main")
		if err != nil {
			t.Fatal(err)
		}
		mirrors, err := mirror.New(t.Context(), mirror.Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Log: kittest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		err = mirrors.Checkout(t.Context(), remote, mirror.Want{SHA: head}, io.Discard)
		if (err == nil) != c.there {
			t.Errorf("%s, fork %v: %v", c.name, c.fork, err)
		}
	}
	elsewhere, err := w.service.checkouts.submodule(t.Context(), g, w.deps.GitHub.PagesURL+"/zeta/private", false)
	if err != nil {
		t.Fatal(err)
	}
	if token, err := elsewhere.Token(context.Background()); token != "" || err != nil {
		t.Errorf("a token goes where the App is not installed: %v", err)
	}
}

func TestNoTokenIsLeftOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(_ *githubsim.Config, deps *Deps) {
		mirrors, err := mirror.New(t.Context(), mirror.Config{Dir: dir, MaxBytes: 1 << 30, Log: kittest.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		deps.Mirrors = mirrors
	})
	if _, err := w.checkout(&configv1.GetSourceRequest{Sha: w.head(), Checkout: &configv1.Source{FullHistory: true}}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("ghs_")) {
			t.Errorf("a token is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
