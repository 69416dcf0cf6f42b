package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
)

// An outsider offers somebody's green commit from a fork, asks for nothing to be
// built of it, and closes it again: its statuses never say anything else.
func TestOutsiderCannotTurnSomebodysCheck(t *testing.T) {
	w := newWorld(t, one())
	w.env = append(w.env, "FORGE_REPORT=both")
	w.up(t)
	_, sha := w.propose(t, "mine", files("file", "mine"))
	w.shows(t, sha, "forge/test", "success")
	before, err := w.sim.StatusHistory(owner, repo, sha)
	must(t, err)

	must(t, w.sim.Fork(owner, repo, "eve"))
	for _, title := range []string{"Mine, too", "Mine, too [skip ci]"} {
		number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: title, Head: "eve:mine", Base: "main"})
		must(t, err)
		must(t, w.sim.WaitDeliveries(t.Context()))
		w.settled(t, fmt.Sprintf("fence-%d-open", number))
		must(t, w.sim.ClosePullRequest(owner, repo, number))
		must(t, w.sim.WaitDeliveries(t.Context()))
		w.settled(t, fmt.Sprintf("fence-%d-closed", number))
	}
	after, err := w.sim.StatusHistory(owner, repo, sha)
	must(t, err)
	for _, said := range after[len(before):] {
		if said.State != "success" {
			t.Errorf("%s was told meanwhile: %s, %s", said.Context, said.State, said.Description)
		}
	}
	runs, err := w.sim.CheckRuns(owner, repo, sha)
	must(t, err)
	for _, run := range runs {
		if run.Name == "Forge / test" && run.Conclusion != "success" {
			t.Errorf("the check run that may be required: %+v", run)
		}
		if run.Name != "Forge / test" && !strings.HasPrefix(run.Name, "Forge / test (#") {
			t.Errorf("a check run called %s", run.Name)
		}
	}
	if len(runs) < 2 {
		t.Errorf("%d check runs: the outsider's is told as well", len(runs))
	}
}

// settled waits until another pull request, opened last, has been built: what came
// before it was told by then.
func (w *world) settled(t *testing.T, branch string) {
	t.Helper()
	_, sha := w.propose(t, branch, files("file", branch))
	w.shows(t, sha, "forge/test", "success")
}
