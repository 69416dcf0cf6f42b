package config

import (
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestPermissionIsGitHubs(t *testing.T) {
	w := newWorld(t)
	for login, role := range map[string]string{"root": "admin", "mia": "maintain", "ada": "write", "tom": "triage", "eve": "read"} {
		if err := w.sim.SetPermission("acme", "app", login, role); err != nil {
			t.Fatal(err)
		}
	}
	collaborators := configv1.NewCollaboratorServiceClient(w.as("scheduler"))
	ask := func(login string) (configv1.GetPermissionResponse_Permission, error) {
		answer, err := collaborators.GetPermission(t.Context(), &configv1.GetPermissionRequest{Repository: w.repo, Login: login})
		return answer.GetPermission(), err
	}
	for login, want := range map[string]configv1.GetPermissionResponse_Permission{
		"root": configv1.GetPermissionResponse_PERMISSION_ADMIN, "mia": configv1.GetPermissionResponse_PERMISSION_WRITE,
		"ada": configv1.GetPermissionResponse_PERMISSION_WRITE, "tom": configv1.GetPermissionResponse_PERMISSION_READ,
		"eve": configv1.GetPermissionResponse_PERMISSION_READ, "nobody-of-that-name": configv1.GetPermissionResponse_PERMISSION_NONE,
	} {
		if got, err := ask(login); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", login, got, err, want)
		}
	}
	if _, err := ask(""); !fault.Is(err, fault.Invalid) {
		t.Errorf("nobody: %v", err)
	}
	w.front.answers("/collaborators/", 200, `{"permission":"sideways"}`)
	if _, err := ask("ada"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an answer that says nothing: %v", err)
	}
	w.front.answers("/collaborators/", 502, "down")
	if _, err := ask("ada"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
}

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
	answer, err := get(int32(number))
	p := answer.GetPullRequest()
	if err != nil || p.GetNumber() != int32(number) || p.GetTitle() != "A patch" || !p.GetOpen() || p.GetCommitCount() != 1 || p.GetHead().GetSha() != sha ||
		p.GetAuthor().GetLogin() != "eve" || p.GetBase().GetRef() != "main" || p.GetBase().GetRepository().GetId() != w.repo.GetId() ||
		p.GetHead().GetRepository().GetOwner() != "eve" || !p.GetUpdateTime().IsValid() {
		t.Errorf("%v, %v", answer, err)
	}
	if err := w.sim.ClosePullRequest("acme", "app", number); err != nil {
		t.Fatal(err)
	}
	if answer, err := get(int32(number)); err != nil || answer.GetPullRequest().GetOpen() {
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
