package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// eachDatabase runs the test in one process on each database.
func eachDatabase(t *testing.T, test func(*testing.T, deployment)) {
	t.Helper()
	for _, d := range []deployment{{}, {postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			test(t, d)
		})
	}
}

// previewFile is a .forge.yml whose pull requests put up a preview, with rules.
func previewFile(rules ...string) string {
	return lines(append([]string{
		"image: busybox",
		"jobs:",
		"  test: {execute: 'true'}",
		"  preview: {needs: test, if: {labels: [preview]}, execute: 'echo up $FORGE_SHA'}",
		"pull_request:",
		"  closed: {execute: 'echo down $FORGE_SHA of $FORGE_PULL_REQUEST'}",
	}, rules...)...)
}

// A team with base branches of its own: which pull requests are built says the base
// branch, and no pull request talks itself out of its check.
func TestPullRequestsIntoBranchesThatTheBaseNames(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": previewFile("  branches: ['[0-9]*.x']")})
		for _, branch := range []string{"13.x", "next"} {
			must(t, w.sim.CreateBranch(owner, repo, branch, "main"))
		}
		w.deploy(t, d)
		opens := func(base, branch string, change githubsim.Commit) (sha string) {
			t.Helper()
			sha = w.branch(t, branch, change)
			_, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "Change " + branch, Head: branch, Base: base})
			must(t, err)
			return sha
		}
		named := opens("13.x", "fix", files("a", "x"))
		w.shows(t, named, "forge/test", "success")
		sly := opens("13.x", "sly", files(".forge.yml", strings.Replace(previewFile("  branches: [nothing]", "  drafts: false", "  labels: [nobody]"), "'true'", "'false'", 1)))
		w.shows(t, sly, "forge/test", "failure")
		for _, base := range []string{"main", "next"} {
			opens(base, "into-"+base, files(".forge.yml", previewFile("  branches: ['**']")))
			w.until(t, "pull_request", "ignored: pull_request.branches in .forge.yml of "+base+" does not name it")
		}
	})
}

// A preview is put up once the label is there, again at each push, and taken down with
// the pull request; a fork's where somebody approved that commit.
func TestAPreviewIsBuiltRebuiltAndTornDown(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": previewFile("  drafts: false")})
		w.deploy(t, d)
		w.branch(t, "shop", files("a", "x"))
		number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "A shop", Head: "shop", Base: "main", Draft: true})
		must(t, err)
		w.until(t, "pull_request", fmt.Sprintf("ignored: #%d is a draft", number))
		must(t, w.sim.SetDraft(owner, repo, number, false))
		first, err := w.sim.Head(owner, repo, "shop")
		must(t, err)
		w.shows(t, first, "forge/test", "success")
		if status := w.shows(t, first, "forge/test/preview", "success"); !strings.Contains(status.Description, "no label preview") {
			t.Errorf("without the label: %+v", status)
		}
		must(t, w.sim.Label(owner, repo, number, "preview", true))
		up := func(sha string) {
			t.Helper()
			kittest.Eventually(t, patience, func() error {
				statuses, err := w.sim.Statuses(owner, repo, sha)
				must(t, err)
				status := statuses["forge/test/preview"]
				if status.State != "success" || !strings.HasPrefix(status.Description, "Passed") {
					return fmt.Errorf("%+v", status)
				}
				return nil
			})
		}
		up(first)
		second := w.push(t, "shop", files("a", "y"))
		up(second)
		must(t, w.sim.Label(owner, repo, number, "preview", false))
		must(t, w.sim.ClosePullRequest(owner, repo, number))
		down := w.shows(t, second, "forge/closed", "success")
		if log := w.log(t, down.TargetURL); !strings.Contains(log, fmt.Sprintf("down %s of %d", second, number)) {
			t.Errorf("the tear down printed %q", log)
		}

		must(t, w.sim.Fork(owner, repo, "mallory"))
		for _, approved := range []bool{false, true} {
			branch := fmt.Sprintf("approved-%v", approved)
			must(t, w.sim.CreateBranch("mallory", repo, branch, "main"))
			sha, err := w.sim.Commit("mallory", repo, branch, files(branch, "x"))
			must(t, err)
			number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: branch, Head: "mallory:" + branch, Base: "main", Author: "mallory"})
			must(t, err)
			w.shows(t, sha, "forge/test", "pending")
			if approved {
				w.comment(t, number, "octocat", "/forge approve "+sha)
				w.shows(t, sha, "forge/test", "success")
			}
			must(t, w.sim.ClosePullRequest(owner, repo, number))
			if approved {
				w.shows(t, sha, "forge/closed", "success")
				continue
			}
			w.until(t, "pull_request", "cancelled: closed without a merge; ignored: pull_request.closed is not run, since nobody approved "+sha[:7])
		}
	})
}
