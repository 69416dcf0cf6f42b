package wire_test

import (
	"errors"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
)

// GitHub's API is later than its webhooks: neither the commit nor its .forge.yml is
// there when Forge first asks.
func TestCommitThatGitHubDoesNotShowYetIsBuilt(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	w.sim.SetLag(2 * time.Second)
	_, sha := w.propose(t, "change", files("message", "hello, late\n"))
	w.shows(t, sha, "forge/test", "success")
	if decided := w.decision(t); decided.GetReason() != eventv1.Reason_REASON_BUILT {
		t.Errorf("decided %s %q", decided.GetReason(), decided.GetText())
	}
}

// A fork of somebody with write access needs no approval, also where GitHub does not
// know the person yet.
func TestWriterWhomGitHubDoesNotShowYetNeedsNoApproval(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	if err := w.sim.Fork(owner, repo, "eve"); err != nil {
		t.Fatal(err)
	}
	sha, err := w.sim.Commit("eve", repo, "main", files("message", "hello from a fork\n"))
	if err != nil {
		t.Fatal(err)
	}
	w.sim.SetLag(2 * time.Second)
	_, err = w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "From a fork", Head: "eve:main", Author: "ada"})
	if err := errors.Join(err, w.sim.SetPermission(owner, repo, "ada", "write")); err != nil {
		t.Fatal(err)
	}
	w.shows(t, sha, "forge/test", "success")
	if decided := w.decision(t); decided.GetReason() != eventv1.Reason_REASON_BUILT {
		t.Errorf("decided %s %q", decided.GetReason(), decided.GetText())
	}
}
