package wire_test

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// What main's builds cache, a pull request's restore; what that caches, main's never
// see. Each cache has its line in the log.
func TestCachesAreRestoredAndCarryNoTrustUpward(t *testing.T) {
	eachDeployment(t, func(t *testing.T, d deployment) {
		const use = `  - if [ -e deps/made ]; then echo "found $(cat deps/made)"; fi; mkdir -p deps; echo "$FORGE_REF" >deps/made`
		w := newWorld(t, map[string]string{
			".forge.yml": lines(
				"image: busybox", `cache: [{key: "deps-${hash:lock}", restore: [deps-], paths: [deps]}]`,
				"execute:", use, "push:", "  branches: [main]", "  execute:", "  "+use,
			),
			"lock": "1\n",
		})
		w.deploy(t, d)
		logOf := func(sha, context string) string { return w.log(t, w.shows(t, sha, context, "success").TargetURL) }
		says := func(log string, wants ...string) {
			t.Helper()
			for _, want := range wants {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, log)
				}
			}
		}
		first := logOf(w.push(t, "main", files("a", "1\n")), "forge/push")
		says(first, "forge: cache deps-", ": nothing was saved for it yet", ": saved, 16 B in ")

		number, sha := w.propose(t, "change", githubsim.Commit{Message: "Change the lock", Files: map[string]string{"lock": "2\n"}})
		pull := logOf(sha, "forge/test")
		says(pull, ": restored from deps-", "found refs/heads/main\n", ": saved, ")
		again := logOf(w.push(t, "change", files("b", "1\n")), "forge/test")
		says(again, ": restored, ", "found refs/pull/")
		if strings.Contains(again, "saved") {
			t.Errorf("a cache that was found by its key was saved again:\n%s", again)
		}
		_ = number
		second := logOf(w.push(t, "main", files("lock", "2\n")), "forge/push")
		says(second, ": restored from deps-", "found refs/heads/main\n", ": saved, ")
	})
}

// What a job leaves, those that need it find in their workspace.
func TestArtifactsReachTheJobsThatNeedThem(t *testing.T) {
	w := newWorld(t, map[string]string{
		".forge.yml": lines(
			"image: busybox", "jobs:",
			"  make:", "    execute: ['mkdir -p dist/sub; echo made >dist/sub/program; chmod 755 dist/sub/program; echo log >run.log; exit $(cat code)']",
			"    artifacts: ['dist/**', {name: logs, paths: ['*.log'], keep: 2d}]",
			"  use:", "    needs: [make]", "    execute: ['cat dist/sub/program run.log; test -x dist/sub/program']",
		),
		"code": "0\n",
	})
	w.up(t)
	_, sha := w.propose(t, "good", githubsim.Commit{Message: "Good", Files: map[string]string{"a": "1\n"}})
	w.shows(t, sha, "forge/test", "success")
	used := w.log(t, w.shows(t, sha, "forge/test/use", "success").TargetURL)
	if !strings.Contains(used, "forge: artifact make: put into the workspace") || !strings.HasSuffix(used, "made\nlog\n") {
		t.Errorf("the log says:\n%s", used)
	}
	_, sha = w.propose(t, "bad", githubsim.Commit{Message: "Bad", Files: map[string]string{"code": "1\n"}})
	failed := w.log(t, w.shows(t, sha, "forge/test/make", "failure").TargetURL)
	if !strings.Contains(failed, "forge: artifact logs: kept, 1 files, 4 B") {
		t.Errorf("the log of the failure says:\n%s", failed)
	}
}
