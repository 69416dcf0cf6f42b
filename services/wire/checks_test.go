package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// testRun waits until a commit has that many check runs of tests and the newest
// has come to a conclusion, "" being none yet, and returns it.
func (w *world) testRun(t *testing.T, sha string, count int, conclusion string) (newest githubsim.CheckRun) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		runs, err := w.sim.CheckRuns(owner, repo, sha)
		must(t, err)
		runs = slices.DeleteFunc(runs, func(r githubsim.CheckRun) bool { return r.Name != "Forge / test" })
		if len(runs) != count {
			return fmt.Errorf("%d check runs of %.7s, want %d", len(runs), sha, count)
		}
		if newest = runs[count-1]; newest.Conclusion != conclusion {
			return fmt.Errorf("run %d of %.7s is %s %s (%s), want %s", count, sha, newest.Status, newest.Conclusion, newest.Title, conclusion)
		}
		return nil
	})
	return newest
}

// press presses a button at a check run, which must be there.
func (w *world) press(t *testing.T, run githubsim.CheckRun, button string) {
	t.Helper()
	if !slices.ContainsFunc(run.Actions, func(a githubsim.Action) bool { return a.Identifier == button }) {
		t.Fatalf("the run %q has no button %s: %v", run.Title, button, run.Actions)
	}
	must(t, w.sim.RequestAction(owner, repo, run.ID, button, "octocat"))
}

// The story with check runs: each build has one, its buttons do what they say,
// and beside them commit statuses are told only where that is asked for.
func TestChecksAndTheirButtons(t *testing.T) {
	for _, report := range []string{"checks", "both"} {
		t.Run(report, func(t *testing.T) {
			w := newWorld(t, hello())
			w.env = append(w.env, "FORGE_REPORT="+report)
			w.up(t)
			_, sha := w.propose(t, "rude", files("greeting", "go away\n"))
			failed := w.testRun(t, sha, 1, "failure")
			if !strings.Contains(failed.Text, "nobody is greeted") || !strings.Contains(failed.Summary, "unit tests") || !strings.HasSuffix(failed.DetailsURL, failed.ExternalID) {
				t.Errorf("the run shows %+v", failed)
			}

			// Run again: GitHub's own button, and Forge's.
			must(t, w.sim.RerequestCheckRun(owner, repo, failed.ID, "octocat"))
			w.press(t, w.testRun(t, sha, 2, "failure"), "rerun")
			w.testRun(t, sha, 3, "failure")
			must(t, w.sim.RequestAction(owner, repo, failed.ID, "rerun", "eve"))
			w.until(t, "check_run", "ignored: eve has no write access to "+owner+"/"+repo)

			// Cancel.
			_, slow := w.propose(t, "slow", files("test.sh", "#!/bin/sh\nsleep 300\n"))
			w.press(t, w.testRun(t, slow, 1, ""), "cancel")
			if run := w.testRun(t, slow, 1, "cancelled"); run.Title != "Cancelled: asked for by octocat" {
				t.Errorf("the run says %q", run.Title)
			}

			// Approve.
			must(t, w.sim.Fork(owner, repo, "eve"))
			patch, err := w.sim.Commit("eve", repo, "main", githubsim.Commit{Files: map[string]string{"patch": "one\n"}, Author: "eve"})
			must(t, err)
			_, err = w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "A patch", Head: "eve:main", Base: "main"})
			must(t, err)
			w.press(t, w.testRun(t, patch, 1, "action_required"), "approve")
			w.testRun(t, patch, 1, "success")

			// Every mistake in .forge.yml is shown where it is.
			_, broken := w.propose(t, "typo", files(".forge.yml", lines("image: busybox", "exceute: [true]", "timeout: soon")))
			typo := w.testRun(t, broken, 1, "failure")
			var at []string
			for _, a := range typo.Annotations {
				at = append(at, fmt.Sprintf("%s:%d", a.Path, a.StartLine))
			}
			if !slices.Contains(at, ".forge.yml:2") || !slices.Contains(at, ".forge.yml:3") {
				t.Errorf("annotations %q", at)
			}

			statuses, err := w.sim.Statuses(owner, repo, patch)
			must(t, err)
			if both := report == "both"; both != (statuses["forge/test"].State == "success") {
				t.Errorf("statuses with %s: %v", report, statuses)
			}
		})
	}
}

// Whatever a build's commands print and its steps are called, people are shown
// text, on GitHub and on Forge's own page.
func TestHostileOutputIsShownAsText(t *testing.T) {
	w := newWorld(t, hello())
	w.env = append(w.env, "FORGE_REPORT=both")
	w.up(t)
	_, sha := w.propose(t, "hostile", files(
		".forge.yml", lines("image: busybox", "execute:", `  - {name: "<script>alert(1)</script> | @everyone `+"\u202e"+`", run: ./test.sh}`),
		"test.sh", lines("#!/bin/sh",
			`printf '\033]0;never ended\n</pre><script>alert(1)</script> @everyone\n'`,
			`printf 'main.go:1:1: @octocat \033[31m<b>\n'`,
			"head -c 40000 /dev/zero | tr '\\000' '`'", // more than a fence can be
			`printf '\n\000\377 the end\n'`,
			"exit 1",
		)))
	run := w.testRun(t, sha, 1, "failure")
	frame := strings.TrimLeft(run.Text[strings.LastIndexByte(run.Text, '\n')+1:], "`")
	if frame != "" || !strings.Contains(run.Text, "\n</pre><script>alert(1)</script> @everyone\nmain.go:1:1: @octocat <b>\n") || !strings.Contains(run.Text, "\n\ufffd the end\n") {
		t.Errorf("the run's text ends in %.200q:\n%.300q", frame, run.Text)
	}
	if !strings.Contains(run.Summary, `\<script\>alert\(1\)\</script\> \| @`+"\u200beveryone |") {
		t.Errorf("the run's summary: %q", run.Summary)
	}
	if len(run.Annotations) != 1 || run.Annotations[0].Path != "main.go" || run.Annotations[0].Message != "@octocat <b>" {
		t.Errorf("the run's annotations: %+v", run.Annotations)
	}
	status := w.shows(t, sha, "forge/test", "failure")
	if !strings.HasPrefix(status.Description, `Step 1 "<script>alert(1)</script> | @everyone" failed (exit 1)`) {
		t.Errorf("the status says %q", status.Description)
	}
	page := w.page(t, status.TargetURL)
	if strings.Contains(page, "<script>alert") || !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt; @everyone") || !strings.Contains(page, "the end") {
		t.Errorf("the page shows %.5000s", page)
	}
}
