package config

import (
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
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
