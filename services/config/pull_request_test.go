package config

import (
	"slices"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestPullRequestIsShownAsItIs(t *testing.T) {
	w := newWorld(t)
	if err := w.sim.Fork("acme", "app", "eve"); err != nil {
		t.Fatal(err)
	}
	sha, err := w.sim.Commit("eve", "app", "main", githubsim.Commit{Files: map[string]string{"c": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	number, err := w.sim.OpenPullRequest("acme", "app", githubsim.PullRequest{Title: "A patch", Head: "eve:main", Base: "main", Author: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	pulls := configv1.NewPullRequestServiceClient(w.as("scheduler"))
	get := func(number int32) (*configv1.GetPullRequestResponse, error) {
		return pulls.GetPullRequest(t.Context(), &configv1.GetPullRequestRequest{Repository: w.repo, Number: number})
	}
	if err := w.sim.Label("acme", "app", number, "needs tests", true); err != nil {
		t.Fatal(err)
	}
	answer, err := get(int32(number))
	p := answer.GetPullRequest()
	if err != nil || p.GetNumber() != int32(number) || p.GetTitle() != "A patch" || !p.GetOpen() || p.GetCommitCount() != 1 || p.GetHead().GetSha() != sha ||
		p.GetAuthor().GetLogin() != "eve" || p.GetBase().GetRef() != "main" || p.GetBase().GetRepository().GetId() != w.repo.GetId() ||
		p.GetHead().GetRepository().GetOwner() != "eve" || !slices.Equal(p.GetLabels(), []string{"needs tests"}) || !p.GetUpdateTime().IsValid() || p.GetCloseTime() != nil {
		t.Errorf("%v, %v", answer, err)
	}
	if err := w.sim.CreateBranch("acme", "app", "renovate/go", "main"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Commit("acme", "app", "renovate/go", githubsim.Commit{Files: map[string]string{"d": "x"}}); err != nil {
		t.Fatal(err)
	}
	bots, err := w.sim.OpenPullRequest("acme", "app", githubsim.PullRequest{Title: "Update Go", Head: "renovate/go", Base: "main", Author: "renovate[bot]"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := get(int32(bots)); err != nil || answer.GetPullRequest().GetAuthor().GetType() != eventv1.Account_TYPE_BOT {
		t.Errorf("a bot's: %v, %v", answer, err)
	}
	if err := w.sim.ClosePullRequest("acme", "app", number); err != nil {
		t.Fatal(err)
	}
	if answer, err := get(int32(number)); err != nil || answer.GetPullRequest().GetOpen() || !answer.GetPullRequest().GetCloseTime().IsValid() {
		t.Errorf("closed: %v, %v", answer, err)
	}
	if _, err := get(4711); !fault.Is(err, fault.NotFound) {
		t.Errorf("none of that number: %v", err)
	}
	w.front.answers("/pulls/", 502, "down")
	if _, err := get(int32(number)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
}
