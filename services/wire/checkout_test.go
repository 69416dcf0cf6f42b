package wire_test

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// Git itself says that a build's workspace is a checkout, and that no token is in
// it or near it.
func TestWorkspaceIsACheckout(t *testing.T) {
	w := newWorld(t, map[string]string{
		".forge.yml": lines(
			"image: busybox", "source: {history: full}", "execute:",
			`  - test -z "$(git status --porcelain)" && echo clean`,
			"  - git describe --tags",
			"  - git log -5 --format=%s",
			"  - git diff --stat origin/$FORGE_BASE_REF",
			"  - git log -1 --format=%H && echo $FORGE_SHA",
			"  - cat dropped version",
			`  - if grep -rs -e 'g[h]s_' -e 'x-access-[t]oken' . /proc/self/environ; then exit 1; fi; git config --local --list | grep -i -e extraheader -e credential && exit 1; echo no token`,
			"  - if git fetch -q origin; then exit 1; else echo asked for a password; fi",
		),
		".gitattributes": "dropped export-ignore\nversion export-subst\n", "dropped": "kept\n", "version": "$Format:%H$\n",
	})
	must(t, w.sim.CreateTag(owner, repo, "v1.0", "main"))
	w.env = append(w.env, "GIT_TERMINAL_PROMPT=0")
	w.up(t)
	_, sha := w.propose(t, "change", githubsim.Commit{Message: "Add a file", Files: map[string]string{"file": "x\n"}})
	passed := w.shows(t, sha, "forge/test", "success")
	log := w.log(t, passed.TargetURL)
	for _, want := range []string{
		"clean\n", "v1.0-1-g" + sha[:7], "Add a file\nInitial commit\n", "1 file changed, 1 insertion(+)", sha + "\n" + sha + "\n",
		"kept\n$Format:%H$\n", "no token\n", "asked for a password\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// A pull request is tested merged where the file asks for it; one that conflicts
// fails at its head.
func TestPullRequestIsTestedMerged(t *testing.T) {
	w := newWorld(t, map[string]string{
		".forge.yml": lines("image: busybox", "pull_request: {test: merge}", "execute:", "  - cat ours theirs", `  - test "$(git rev-parse HEAD)" = "$FORGE_MERGE_SHA" && echo merged`),
		"ours":       "1\n", "theirs": "1\n",
	})
	w.up(t)
	must(t, w.sim.CreateBranch(owner, repo, "good", "main"))
	must(t, w.sim.CreateBranch(owner, repo, "bad", "main"))
	w.push(t, "main", files("theirs", "2\n"))
	_, err := w.sim.Commit(owner, repo, "good", files("ours", "2\n"))
	must(t, err)
	good, err := w.sim.Head(owner, repo, "good")
	must(t, err)
	w.open(t, "good")
	passed := w.shows(t, good, "forge/test", "success")
	if log := w.log(t, passed.TargetURL); !strings.Contains(log, "2\n2\nmerged\n") {
		t.Errorf("the log says %q", log)
	}
	_, err = w.sim.Commit(owner, repo, "bad", files("theirs", "3\n"))
	must(t, err)
	bad, err := w.sim.Head(owner, repo, "bad")
	must(t, err)
	w.open(t, "bad")
	if failed := w.shows(t, bad, "forge/test", "failure"); !strings.Contains(failed.Description, "conflicts in theirs") {
		t.Errorf("the status says %q", failed.Description)
	}
}
