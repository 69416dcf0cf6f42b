package config

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// usualPermissions are those of an App that may not, or may, read members.
func usualPermissions(more ...string) func(*githubsim.Config, *Deps) {
	return func(c *githubsim.Config, _ *Deps) {
		c.Permissions = map[string]string{"metadata": "read", "contents": "read", "pull_requests": "write", "statuses": "write"}
		for _, one := range more {
			c.Permissions[one] = "read"
		}
	}
}

func TestWhoIsInATeamIsGitHubs(t *testing.T) {
	w := newWorld(t, usualPermissions("members"))
	w.sim.SetTeamMember("acme", "ops", "ada", true)
	w.sim.SetTeamMember("other", "ops", "eve", true)
	collaborators := configv1.NewCollaboratorServiceClient(w.as("scheduler"))
	ask := func(team, login string) (bool, error) {
		answer, err := collaborators.GetTeamMembership(t.Context(), &configv1.GetTeamMembershipRequest{Repository: w.repo, Team: team, Login: login})
		return answer.GetMember(), err
	}
	for who, want := range map[string]bool{
		"acme/ops ada": true, "ACME/ops ada": true, "acme/ops eve": false, "acme/ops nobody-of-that-name": false, "acme/none ada": false, "other/ops eve": false,
	} {
		team, login, _ := strings.Cut(who, " ")
		if got, err := ask(team, login); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", who, got, err, want)
		}
	}
	w.sim.SetTeamMember("acme", "ops", "ada", false)
	if got, err := ask("acme/ops", "ada"); got || err != nil {
		t.Errorf("who has left it: %v, %v", got, err)
	}
	for _, bad := range []string{"ops", "/ops", "acme/", ""} {
		if _, err := ask(bad, "ada"); !fault.Is(err, fault.Invalid) {
			t.Errorf("team %q: %v", bad, err)
		}
	}
	if _, err := ask("acme/ops", ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("nobody: %v", err)
	}
	w.front.answers("/memberships/", 502, "down")
	if _, err := ask("acme/ops", "ada"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
	if _, err := configv1.NewCollaboratorServiceClient(w.as("reporter")).GetTeamMembership(t.Context(), &configv1.GetTeamMembershipRequest{Repository: &eventv1.Repository{Owner: "acme", Name: "app"}, Team: "acme/ops", Login: "ada"}); !fault.Is(err, fault.Denied) {
		t.Errorf("another room: %v", err)
	}
}

// Without the permission the answer says what to do, and nobody is taken for a member.
func TestTeamsThatMayNotBeReadSayWhatToDo(t *testing.T) {
	for name, w := range map[string]*world{"not granted": newWorld(t, usualPermissions()), "refused": newWorld(t, usualPermissions("members"))} {
		if name == "refused" {
			w.front.answers("/memberships/", 403, `{"message": "Resource not accessible by integration"}`)
		}
		w.sim.SetTeamMember("acme", "ops", "ada", true)
		ask := func() (*configv1.GetTeamMembershipResponse, error) {
			return configv1.NewCollaboratorServiceClient(w.as("scheduler")).GetTeamMembership(t.Context(), &configv1.GetTeamMembershipRequest{Repository: w.repo, Team: "acme/ops", Login: "ada"})
		}
		if answer, err := ask(); err == nil { // GitHub may not know yet what a new token may
			t.Errorf("%s: %v", name, answer)
		}
		w.clock.Advance(kitgithub.TokenLag)
		answer, err := ask()
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "grant it the organization permission Members: read") || answer.GetMember() {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
}
