package githubsim_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"
)

// deploy asks for a deployment as Forge does: what was merged, without more ado.
func (w *world) deploy(ref, environment string) *github.Deployment {
	w.t.Helper()
	d, _, err := w.shop().Repositories.CreateDeployment(w.t.Context(), "acme", "shop", &github.DeploymentRequest{
		Ref: &ref, Environment: &environment, AutoMerge: new(false), RequiredContexts: &[]string{},
	})
	w.must(err)
	return d
}

func (w *world) deployed(d *github.Deployment, state string) {
	w.t.Helper()
	_, _, err := w.shop().Repositories.CreateDeploymentStatus(w.t.Context(), "acme", "shop", d.GetID(), &github.DeploymentStatusRequest{
		State: &state, LogURL: new("https://forge.example/b/1"), EnvironmentURL: new("https://shop.example"),
	})
	w.must(err)
}

func (w *world) states() map[int64]string {
	w.t.Helper()
	list, err := w.sim.Deployments("acme", "shop")
	w.must(err)
	states := map[int64]string{}
	for _, d := range list {
		states[d.ID] = d.State()
	}
	return states
}

func TestDeploymentsReplaceEachOther(t *testing.T) {
	w := newWorld(t)
	head := w.head()
	first, second := w.deploy(head, "staging"), w.deploy(head, "staging")
	other, production := w.deploy(head, "preview"), w.deploy(head, "production")
	for _, d := range []*github.Deployment{first, other, production} {
		w.deployed(d, "queued")
		w.deployed(d, "in_progress")
		w.deployed(d, "success")
	}
	w.deployed(second, "failure")
	if got := w.states(); got[first.GetID()] != "success" || got[second.GetID()] != "failure" {
		t.Errorf("a failure replaces nothing: got %v", got)
	}
	w.deployed(second, "success")
	again := w.deploy(head, "production")
	w.deployed(again, "success")
	got := w.states()
	for d, want := range map[*github.Deployment]string{first: "inactive", second: "success", other: "success", production: "success", again: "success"} {
		if got[d.GetID()] != want {
			t.Errorf("%s: got %s, want %s", d.GetEnvironment(), got[d.GetID()], want)
		}
	}
	shop, ctx := w.shop(), t.Context()
	list, _, err := shop.Repositories.ListDeployments(ctx, "acme", "shop", &github.DeploymentsListOptions{Environment: "staging", SHA: head})
	if err != nil || len(list) != 2 || list[0].GetID() != second.GetID() || list[0].GetCreator().GetLogin() != "forge[bot]" {
		t.Errorf("got %v, error %v", list, err)
	}
	one, _, err := shop.Repositories.GetDeployment(ctx, "acme", "shop", first.GetID())
	if err != nil || one.GetSHA() != head || one.GetTask() != "deploy" {
		t.Errorf("got %v, error %v", one, err)
	}
	statuses, _, err := shop.Repositories.ListDeploymentStatuses(ctx, "acme", "shop", first.GetID(), nil)
	if err != nil || len(statuses) != 4 || statuses[0].GetState() != "inactive" || statuses[1].GetLogURL() != "https://forge.example/b/1" || statuses[1].GetEnvironmentURL() != "https://shop.example" {
		t.Errorf("got %v, error %v", statuses, err)
	}
}

// The two defaults that surprise: a branch is merged into first, and every status must be a success.
func TestDeploymentsDoMoreThanAskedUnlessToldNotTo(t *testing.T) {
	w := newWorld(t)
	tip := w.commit("feature", map[string]string{"x": "x"})
	w.commit("main", map[string]string{"y": "y"})
	shop, ctx := w.shop(), t.Context()
	create := func(request github.DeploymentRequest) (*github.Response, error) {
		_, answer, err := shop.Repositories.CreateDeployment(ctx, "acme", "shop", &request)
		return answer, err
	}
	answer, _ := create(github.DeploymentRequest{Ref: new("feature")})
	if now, err := w.sim.Head("acme", "shop", "feature"); answer.StatusCode != http.StatusAccepted || err != nil || now == tip {
		t.Errorf("got %s, feature at %s, error %v", answer.Status, now, err)
	}
	w.status(w.head(), "pending")
	_, err := create(github.DeploymentRequest{Ref: new("main")})
	wantError(t, err, http.StatusConflict, "Conflict: Commit status checks failed for main.")
	_, err = create(github.DeploymentRequest{Ref: new("main"), RequiredContexts: &[]string{"forge/staging"}})
	wantError(t, err, http.StatusConflict, "Commit status checks failed")
	w.status(w.head(), "success")
	if _, err = create(github.DeploymentRequest{Ref: new("main")}); err != nil {
		t.Errorf("all are a success: %v", err)
	}
	w.commit("clash", map[string]string{"README.md": "# Clash\n"})
	w.commit("main", map[string]string{"README.md": "# Main\n"})
	_, err = create(github.DeploymentRequest{Ref: new("clash")})
	wantError(t, err, http.StatusConflict, "Conflict merging main into clash.")
}

func TestDeploymentsAreRefused(t *testing.T) {
	w := newWorld(t)
	d := w.deploy(w.head(), "staging")
	shop, ctx := w.shop(), t.Context()
	for want, request := range map[string]github.DeploymentRequest{
		`"ref" wasn't supplied.`:                    {},
		"No ref found for: gone":                    {Ref: new("gone")},
		"description is too long":                   {Ref: new("main"), Description: new(strings.Repeat("x", 141))},
		"description doesn't accept 4-byte Unicode": {Ref: new("main"), Description: new("🧪")},
		"environment doesn't accept 4-byte Unicode": {Ref: new("main"), Environment: new("🧪")},
	} {
		_, _, err := shop.Repositories.CreateDeployment(ctx, "acme", "shop", &request)
		wantError(t, err, http.StatusUnprocessableEntity, want)
	}
	for want, request := range map[string]github.DeploymentStatusRequest{
		"state is not included in the list":         {State: new("done")},
		"description is too long":                   {State: new("success"), Description: new(strings.Repeat("x", 141))},
		"description doesn't accept 4-byte Unicode": {State: new("success"), Description: new("🧪")},
		"environment_url must use http(s) scheme":   {State: new("success"), EnvironmentURL: new("shop.example")},
	} {
		_, _, err := shop.Repositories.CreateDeploymentStatus(ctx, "acme", "shop", d.GetID(), &request)
		wantError(t, err, http.StatusUnprocessableEntity, want)
	}
	_, _, err := shop.Repositories.CreateDeploymentStatus(ctx, "acme", "shop", 999_999, &github.DeploymentStatusRequest{State: new("success")})
	wantError(t, err, http.StatusNotFound, "Not Found")
	if got := w.states()[d.GetID()]; got != "" {
		t.Errorf("refused, and yet it is %s", got)
	}
}
