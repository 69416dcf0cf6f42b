package config

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

const pathsFile = goodFile + "paths: {include: [src/**, '*.go'], ignore: [src/docs/**, '**/*.md']}\n"

// changes is what a request says of a change.
func (w *world) changes(sha string, pull int, base string) (*configv1.GetBuildConfigResponse, error) {
	req := &configv1.GetBuildConfigRequest{Repository: w.repo, InstallationId: w.install, Sha: sha}
	if pull != 0 {
		req.Change = &configv1.GetBuildConfigRequest_PullRequest{PullRequest: int32(pull)}
	}
	if base != "" {
		req.Change = &configv1.GetBuildConfigRequest_BaseSha{BaseSha: base}
	}
	return configv1.NewBuildConfigServiceClient(w.as("scheduler")).GetBuildConfig(w.t.Context(), req)
}

// misses asks about a change, which must have an answer.
func (w *world) misses(sha string, pull int, base string) bool {
	w.t.Helper()
	answer, err := w.changes(sha, pull, base)
	if err != nil || answer.GetConfig() == nil {
		w.t.Errorf("%v, error %v", answer, err)
	}
	return answer.GetNoMatchingPaths()
}

func (w *world) on(branch string, change githubsim.Commit) string {
	w.t.Helper()
	sha, err := w.sim.Commit("acme", "app", branch, change)
	if err != nil {
		w.t.Fatal(err)
	}
	return sha
}

// propose opens a pull request with a change.
func (w *world) propose(branch string, change githubsim.Commit) (sha string, number int) {
	w.t.Helper()
	if err := w.sim.CreateBranch("acme", "app", branch, "main"); err != nil {
		w.t.Fatal(err)
	}
	sha = w.on(branch, change)
	number, err := w.sim.OpenPullRequest("acme", "app", githubsim.PullRequest{Head: branch, Base: "main", Title: branch})
	if err != nil {
		w.t.Fatal(err)
	}
	return sha, number
}

func write(names ...string) githubsim.Commit {
	files := map[string]string{}
	for _, name := range names {
		files[name] = "changed in " + strings.Join(names, ", ")
	}
	return githubsim.Commit{Files: files}
}

func many(format string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf(format, i))
	}
	return names
}

func TestPathsAreHeldAgainstChangedFiles(t *testing.T) {
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile, "src/old.go": "x", "src/docs/old": "y"}})
	for n, c := range []struct {
		name   string
		change githubsim.Commit
		misses bool
	}{
		{"included", write("src/deep/main.go"), false},
		{"at the top", write("main.go"), false},
		{"not included", write("README", "deep/main.go"), true},
		{"ignored", write("src/docs/guide", "src/README.md"), true},
		{"one of many", write(append(many("other/%d", 150), "src/z")...), false},
		{"many", write(many("other/%03d", 299)...), true},
		{"deleted", githubsim.Commit{Delete: []string{"src/old.go"}}, false},
		{"deleted, ignored", githubsim.Commit{Delete: []string{"src/docs/old"}}, true},
		{"none", githubsim.Commit{Message: "nothing"}, false},
	} {
		base := w.head()
		sha, number := w.propose(fmt.Sprint("p", n), c.change)
		if got := w.misses(sha, number, ""); got != c.misses {
			t.Errorf("%s, as a pull request: %t", c.name, got)
		}
		if got := w.misses(sha, 0, base); got != c.misses {
			t.Errorf("%s, as a push: %t", c.name, got)
		}
		if w.misses(sha, 0, "") {
			t.Errorf("%s: paths count where no change was named", c.name)
		}
	}
}

func TestChangesThatCannotBeToldAreBuilt(t *testing.T) {
	w := newWorld(t)
	first := w.head()
	base := w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	docs := w.commit(write("README"))
	if !w.misses(docs, 0, base) {
		t.Fatal("a change of docs alone is built")
	}
	for name, from := range map[string]string{
		"a new branch":             strings.Repeat("0", 40),
		"a commit that is gone":    strings.Repeat("1", 40),
		"what is no commit":        "main~1",
		"a push back":              w.commit(write("more")),
		"no change":                docs,
		"what is on another track": w.on(w.branch("side", first), write("side")),
	} {
		if w.misses(docs, 0, from) {
			t.Errorf("%s is not built", name)
		}
	}
	if w.misses(w.on(w.branch("large", "main"), write(many("other/%03d", 300)...)), 0, w.head()) {
		t.Error("a list of files at GitHub's limit is taken for whole")
	}
	sha, number := w.propose("moved", write("README"))
	w.on("moved", write("src/main.go"))
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool { // as it was before the second push
		if !strings.HasSuffix(r.URL.Path, "/files") {
			return false
		}
		fmt.Fprint(out, `[{"filename": "README"}]`)
		return true
	})
	if w.misses(sha, number, "") {
		t.Error("the files of another head are taken for the commit's")
	}
	w.front.set(nil)
	if w.misses(sha, 9999, "") {
		t.Error("a pull request that is not there")
	}
}

func (w *world) branch(name, from string) string {
	w.t.Helper()
	if err := w.sim.CreateBranch("acme", "app", name, from); err != nil {
		w.t.Fatal(err)
	}
	return name
}

func TestRenamedFilesCountUnderBothNames(t *testing.T) {
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	sha, number := w.propose("rename", write("README"))
	for _, c := range []struct {
		now, before string
		misses      bool
	}{
		{"other/a", "src/a", false}, {"src/a", "other/a", false}, {"other/a", "other/b", true},
	} {
		w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/files") {
				return false
			}
			fmt.Fprintf(out, `[{"filename": %q, "previous_filename": %q, "status": "renamed"}]`, c.now, c.before)
			return true
		})
		if got := w.misses(sha, number, ""); got != c.misses {
			t.Errorf("%s → %s: %t", c.before, c.now, got)
		}
	}
}

func TestChangedFilesWhileGitHubRefuses(t *testing.T) {
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	base := w.head()
	sha, number := w.propose("docs", write("README"))
	for _, c := range []struct {
		status int
		header []string
		again  bool // asked again later; else built
	}{
		{401, nil, true},
		{403, nil, false},
		{403, []string{"Retry-After", "5"}, true},
		{404, nil, false},
		{409, nil, false},
		{422, nil, false},
		{500, nil, true},
		{503, []string{"Retry-After", "5"}, true},
	} {
		for path, change := range map[string]func() (*configv1.GetBuildConfigResponse, error){
			"/files":   func() (*configv1.GetBuildConfigResponse, error) { return w.changes(sha, number, "") },
			"/compare": func() (*configv1.GetBuildConfigResponse, error) { return w.changes(sha, 0, base) },
		} {
			w.front.answers(path, c.status, "no", c.header...)
			answer, err := change()
			switch {
			case c.again && !fault.Is(err, fault.Unavailable):
				t.Errorf("%s answers %d: %v, error %v", path, c.status, answer, err)
			case !c.again && (err != nil || answer.GetConfig() == nil || answer.GetNoMatchingPaths()):
				t.Errorf("%s answers %d: %v, error %v", path, c.status, answer, err)
			}
		}
	}
	w.front.cuts("/files", 20)
	if _, err := w.changes(sha, number, ""); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a cut connection: %v", err)
	}
	w.front.set(nil)
	if !w.misses(sha, number, "") {
		t.Error("after that it is as before")
	}
}
