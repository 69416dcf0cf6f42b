package githubsim_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

// git runs git in a folder, as somebody without settings, and returns what it says.
func git(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=ada", "GIT_COMMITTER_EMAIL=ada@example.com",
	}
	said, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(said)), err
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	said, err := git(w.t, dir, args...)
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said
}

// remote is the address of a repository for one who has a token; "" is nobody.
func (w *world) remote(token, path string) string {
	w.t.Helper()
	address, err := url.Parse(w.url)
	w.must(err)
	if token != "" {
		address.User = url.UserPassword("x-access-token", token)
	}
	return address.JoinPath(path).String()
}

// clone clones acme/shop as the installation.
func (w *world) clone(options ...string) (dir string) {
	w.t.Helper()
	dir = filepath.Join(w.t.TempDir(), "shop")
	w.git(".", slices.Concat([]string{"clone", "-q"}, options, []string{w.remote(w.token(nil), "acme/shop.git"), dir})...)
	return dir
}

func TestRepositoryIsCloned(t *testing.T) {
	for _, version := range []string{"0", "1", "2"} {
		t.Run("protocol "+version, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.sim.CreateTag("acme", "shop", "v1", "main"))
			number := w.pull("topic")
			_, err := w.sim.Commit("acme", "shop", "topic", githubsim.Commit{
				Message: "Two lines\n\nof a message", Author: "mona", Files: map[string]string{"ci/deep/er": "x"}, Links: map[string]string{"link": "ci/deep"},
			})
			w.must(err)
			dir := w.clone("-c", "protocol.version="+version)
			if at, branch := w.git(dir, "rev-parse", "HEAD", "v1"), w.git(dir, "branch", "--show-current"); at != w.head()+"\n"+w.head() || branch != "main" {
				t.Errorf("HEAD and v1 are at %s, on %s", at, branch)
			}
			w.git(dir, "checkout", "-q", "topic")
			w.git(dir, "fsck", "--strict")
			if at := w.git(dir, "rev-parse", "HEAD"); at != w.headOf("topic") {
				t.Errorf("topic is at %s", at)
			}
			if status := w.git(dir, "status", "--porcelain"); status != "" {
				t.Errorf("not clean: %s", status)
			}
			if modes := w.git(dir, "ls-tree", "--format=%(objectmode) %(path)", "-r", "HEAD"); modes !=
				"100644 .forge.yml\n100644 README.md\n100644 ci/deep/er\n100755 ci/test.sh\n120000 link\n100644 topic.txt" {
				t.Errorf("got %s", modes)
			}
			if log := w.git(dir, "log", "-1", "--format=%an <%ae> %cn %cI|%B"); !strings.HasPrefix(log, "mona <") ||
				!strings.HasSuffix(log, "> mona 2026-11-02T09:00:00+00:00|Two lines\n\nof a message") {
				t.Errorf("got %q", log)
			}
			refs := w.git(dir, "ls-remote", "--symref", "origin")
			for _, want := range []string{"ref: refs/heads/main\tHEAD", "refs/heads/topic", "refs/tags/v1", "refs/pull/1/head", "refs/pull/1/merge"} {
				if !strings.Contains(refs, want) {
					t.Errorf("pull request %d: %s is not told in\n%s", number, want, refs)
				}
			}
		})
	}
}

func TestFetchesBringWhatIsNew(t *testing.T) {
	w := newWorld(t)
	dir := w.clone("--depth=1")
	first := w.head()
	second := w.commit("main", map[string]string{"b": "b"})
	third := w.commit("main", map[string]string{"c": "c"})
	w.git(dir, "fetch", "-q", "--depth=1", "origin", third)
	if log := w.git(dir, "log", "--format=%H", "FETCH_HEAD"); log != third {
		t.Errorf("a shallow fetch of a sha brought %s", log)
	}
	w.git(dir, "fetch", "-q", "--unshallow", "origin")
	if log := w.git(dir, "log", "--format=%H", "origin/main"); log != third+"\n"+second+"\n"+first {
		t.Errorf("all of it is %s", log)
	}
	w.must(w.sim.CreateBranch("acme", "shop", "gone", "main"))
	w.git(dir, "fetch", "-q")
	w.must(w.sim.DeleteBranch("acme", "shop", "gone"))
	w.git(dir, "fetch", "-q", "--prune")
	if branches := w.git(dir, "branch", "-r", "--format=%(refname)"); strings.Contains(branches, "gone") {
		t.Errorf("a deleted branch is still there: %s", branches)
	}
}

func TestPartialClone(t *testing.T) {
	w := newWorld(t)
	dir := w.clone("--filter=blob:none", "--no-checkout")
	if missing := w.git(dir, "rev-list", "--objects", "--missing=print", "HEAD"); strings.Count(missing, "?") != 3 {
		t.Errorf("want no file to be there: %s", missing)
	}
	w.git(dir, "checkout", "-q", "main")
}

// A commit that no ref leads to any more is there all the same.
func TestCommitOfADeletedBranchIsFetched(t *testing.T) {
	w := newWorld(t)
	left := w.commit("topic", map[string]string{"left": "x"})
	w.must(w.sim.DeleteBranch("acme", "shop", "topic"))
	dir := w.clone()
	w.git(dir, "fetch", "-q", "origin", left)
	if at := w.git(dir, "rev-parse", "FETCH_HEAD"); at != left {
		t.Errorf("got %s, want %s", at, left)
	}
	said, err := git(t, dir, "fetch", "-q", "origin", "0123456789012345678901234567890123456789")
	if err == nil || !strings.Contains(said, "not our ref") {
		t.Errorf("a commit that never was: %v, %s", err, said)
	}
}

func TestForksCommitIsFetchedThroughItsBase(t *testing.T) {
	w := newWorld(t)
	number, sha := w.forked()
	if number != 1 {
		t.Fatalf("it is pull request %d", number)
	}
	dir := w.clone()
	for _, what := range []string{"refs/pull/1/head", sha} {
		w.git(dir, "fetch", "-q", "origin", what)
		if at := w.git(dir, "rev-parse", "FETCH_HEAD"); at != sha {
			t.Errorf("%s: got %s, want %s", what, at, sha)
		}
	}
	w.git(dir, "fetch", "-q", "origin", "refs/pull/1/merge")
	if parents := w.git(dir, "log", "-1", "--format=%P", "FETCH_HEAD"); parents != w.head()+" "+sha {
		t.Errorf("the test merge is of %s", parents)
	}
	_, err := git(t, dir, "ls-remote", w.remote(w.token(nil), "mallory/shop"))
	if err == nil {
		t.Error("a token of acme reads mallory's private fork")
	}
}

func TestCloneAsksWhoCalls(t *testing.T) {
	w := newWorld(t, func(c *githubsim.Config) { c.TokenLife = time.Hour })
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "open", Public: true}))
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "zeta", Name: "open", Public: true}))
	old := w.token(nil)
	w.clock.advance(time.Hour)
	good := w.token(nil)
	one := w.token(&github.InstallationTokenOptions{Repositories: []string{"open"}})
	blind := w.token(&github.InstallationTokenOptions{Permissions: &github.InstallationPermissions{Statuses: new("write")}})
	for name, test := range map[string]struct {
		token, path string
		status      int
		says        string
	}{
		"with .git":                      {good, "acme/shop.git", 200, ""},
		"without .git":                   {good, "acme/shop", 200, ""},
		"other letters":                  {good, "ACME/Shop", 200, ""},
		"nobody":                         {"", "acme/shop.git", 401, "Repository not found."},
		"nobody, and no such repository": {"", "acme/none.git", 401, "Repository not found."},
		"nobody, public":                 {"", "acme/open.git", 200, ""},
		"another's public one":           {good, "zeta/open.git", 200, ""},
		"not installed":                  {good, "zeta/other.git", 404, "Repository not found."},
		"no such repository":             {good, "acme/none.git", 404, "Repository not found."},
		"a token for others":             {one, "acme/shop.git", 404, "Repository not found."},
		"a token for it":                 {one, "acme/open.git", 200, ""},
		"an invented token":              {"ghs_invented", "acme/shop.git", 401, "Invalid username or token."},
		"an invented token, public":      {"ghs_invented", "acme/open.git", 401, "Invalid username or token."},
		"an expired token":               {old, "acme/shop.git", 401, "Invalid username or token."},
		"a token without contents":       {blind, "acme/shop.git", 403, "Write access to repository not granted."},
	} {
		t.Run(name, func(t *testing.T) {
			authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+test.token))
			ask := []string{"ls-remote", w.url + "/" + test.path}
			if test.token == "" {
				authorization = ""
			} else {
				ask = slices.Concat([]string{"-c", "http.extraHeader=Authorization: " + authorization}, ask)
			}
			status, said, header := w.askGit(t, test.path, authorization)
			if status != test.status || !strings.Contains(said, test.says) {
				t.Errorf("got %d %q, want %d %q", status, said, test.status, test.says)
			}
			if (header.Get("WWW-Authenticate") != "") != (status == http.StatusUnauthorized) {
				t.Errorf("got WWW-Authenticate %q with %d", header.Get("WWW-Authenticate"), status)
			}
			if said, err := git(t, ".", ask...); (err == nil) != (test.status == http.StatusOK) {
				t.Errorf("git: %v: %s", err, said)
			}
		})
	}
	for scheme, status := range map[string]int{"bearer": 401, "token": 401} {
		if got, said, _ := w.askGit(t, "acme/shop.git", scheme+" "+good); got != status || said != "invalid credentials" {
			t.Errorf("%s: got %d %q", scheme, got, said)
		}
	}
	for user, token := range map[string]string{"whoever": good, good: "", "x-oauth-basic": good} {
		address, _ := url.Parse(w.url + "/acme/shop.git")
		address.User = url.UserPassword(user, token)
		w.git(".", "ls-remote", address.String())
	}
}

// askGit asks what git asks first.
func (w *world) askGit(t *testing.T, path, authorization string) (status int, said string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/"+path+"/info/refs?service=git-upload-pack", nil)
	w.must(err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	answer, err := http.DefaultClient.Do(req)
	w.must(err)
	defer answer.Body.Close()
	return answer.StatusCode, readAll(t, answer.Body), answer.Header
}

func TestSuspendedInstallationClonesNothing(t *testing.T) {
	w := newWorld(t)
	token := w.token(nil)
	w.must(w.sim.SuspendInstallation("acme"))
	said, err := git(t, ".", "ls-remote", w.remote(token, "acme/shop"))
	if err == nil || !strings.Contains(said, "suspended") || !strings.Contains(said, "403") {
		t.Errorf("got %v: %s", err, said)
	}
}

func TestNewTokenIsRefusedForAWhile(t *testing.T) {
	w := newWorld(t)
	w.sim.SetTokenLag(2 * time.Second)
	token := w.token(nil)
	if said, err := git(t, ".", "ls-remote", w.remote(token, "acme/shop")); err == nil || !strings.Contains(said, "403") {
		t.Errorf("at once: %v: %s", err, said)
	}
	w.clock.advance(2 * time.Second)
	w.git(".", "ls-remote", w.remote(token, "acme/shop"))
}

func TestOldNameLeadsToTheNewOne(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.RenameRepository("acme", "shop", "store"))
	dir := w.clone()
	if at := w.git(dir, "rev-parse", "HEAD"); at == "" {
		t.Error("nothing was cloned")
	}
}

func TestFetchIsLaterThanTheWebhook(t *testing.T) {
	w := newWorld(t)
	dir, old := w.clone(), w.head()
	w.clock.advance(time.Second)
	w.sim.SetLag(5 * time.Second)
	sha := w.commit("main", map[string]string{"late": "x"})
	w.pull("topic")
	refs := w.git(dir, "ls-remote", "origin")
	if strings.Contains(refs, sha) || !strings.Contains(refs, old) || strings.Contains(refs, "refs/pull/") {
		t.Errorf("at once: %s", refs)
	}
	if said, err := git(t, dir, "fetch", "origin", sha); err == nil || !strings.Contains(said, "not our ref") {
		t.Errorf("at once: %v: %s", err, said)
	}
	w.clock.advance(5 * time.Second)
	w.git(dir, "fetch", "-q", "origin", sha, "refs/pull/1/head")
}

func TestCloseRemovesWhatGitServed(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	w := newWorld(t)
	w.git(".", "ls-remote", w.remote(w.token(nil), "acme/shop"))
	left := func() []string {
		found, err := filepath.Glob(filepath.Join(temporary, "githubsim-*"))
		w.must(err)
		return found
	}
	if len(left()) != 1 {
		t.Errorf("git is served from %v", left())
	}
	w.sim.Close()
	if len(left()) != 0 {
		t.Errorf("left: %v", left())
	}
}

func readAll(t *testing.T, from io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
