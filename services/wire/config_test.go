package wire_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
)

func picky() map[string]string {
	all := hello()
	all[".forge.yml"] += "paths: {ignore: ['docs/**']}\n"
	return all
}

func TestChangesThatNoPathMatchesPassWithoutABuild(t *testing.T) {
	w := newWorld(t, picky())
	w.deploy(t, deployment{})
	number, docs := w.propose(t, "docs", files("docs/guide", "read me"))
	status := w.shows(t, docs, "forge/test", "success")
	if status.Description != "Skipped: no matching paths" {
		t.Errorf("shows %q", status.Description)
	}
	if page := w.page(t, status.TargetURL); !strings.Contains(page, "no matching paths") {
		t.Errorf("its page does not say why:\n%s", page)
	}
	code := w.push(t, "docs", files("greeting", "hello there\n"))
	if status := w.shows(t, code, "forge/test", "success"); !strings.HasPrefix(status.Description, "Passed") {
		t.Errorf("with code: %q", status.Description)
	}
	w.shows(t, w.merge(t, number), "forge/deploy-staging", "success")
}

func TestEditorsAndPeopleCheckFilesByHTTP(t *testing.T) {
	w := newWorld(t, hello())
	w.deploy(t, deployment{})
	answer, err := http.Get(w.http + "/v1/schema/forge.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var schema struct {
		Schema string `json:"$schema"`
		Title  string `json:"title"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&schema); err != nil || schema.Title != ".forge.yml" || !strings.Contains(schema.Schema, "2020-12") {
		t.Errorf("schema %v, error %v", schema, err)
	}
	req, err := http.NewRequest(http.MethodPost, w.http+"/v1/build-config:validate", strings.NewReader(`{"content": "image: busybox\nexceute: make\n"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	checked, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = checked.Body.Close() }()
	body, err := io.ReadAll(checked.Body)
	if err != nil || !strings.Contains(string(body), `unknown key \"exceute\", did you mean \"execute\"?`) {
		t.Errorf("%s %s, error %v", checked.Status, body, err)
	}
}

// All that a run says, its spans and the errors it answers with included, holds
// no token and no key, whatever GitHub does.
func TestNothingThatForgeSaysHoldsASecret(t *testing.T) {
	w := newWorld(t, picky())
	key, err := os.ReadFile(w.key)
	if err != nil {
		t.Fatal(err)
	}
	secrets := append(strings.Split(strings.TrimSpace(string(key)), "\n"),
		"ghs_", "eyJ", "token=", adminToken, webhookSecret, "its-token", "their-token", "our-token")
	quiet := func(t *testing.T, where, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	t.Cleanup(func() { // once the processes have ended and their spans are out
		for _, p := range w.processes {
			if !strings.Contains(p.output.String(), "SpanContext") {
				t.Errorf("%s shows no span", p.name)
			}
			quiet(t, p.name, p.output.String())
		}
	})
	w.env = append(w.env, "FORGE_DEBUG=true", "OTEL_TRACES_EXPORTER=console")
	w.deploy(t, deployment{apart: true}) // so that there are the rooms' tokens too

	number, head := w.propose(t, "greet", files("greeting", "hello again\n"))
	w.shows(t, head, "forge/test", "success")
	for _, wrong := range []githubsim.Misbehaviour{
		{Status: http.StatusUnauthorized, Times: 2},
		{Status: http.StatusBadGateway, Times: 2},
		{Cut: true, Times: 2},
		{Half: true, Times: 2},
		{Route: "access_tokens", Status: http.StatusForbidden, RetryAfter: 1, Times: 1},
	} {
		undo := w.sim.Misbehave(wrong)
		w.shows(t, w.push(t, "greet", files("greeting", "hello "+http.StatusText(wrong.Status)+wrong.Route+"!\n")), "forge/test", "success")
		undo()
	}
	w.shows(t, w.merge(t, number), "forge/deploy-staging", "success")
	_, broken := w.propose(t, "broken", files(".forge.yml", "imag: busybox\n"))
	w.shows(t, broken, "forge/test", "error")

	conn := w.dial(t, "config")
	_, err = configv1.NewTokenServiceClient(conn).CreateToken(asAdmin(t.Context()), &configv1.CreateTokenRequest{
		Repository: &eventv1.Repository{Owner: owner, Name: repo}, RejectedToken: "ghs_rejected",
	})
	if err == nil {
		t.Error("the admin token opens tokens")
	} else {
		quiet(t, "the error of CreateToken", err.Error())
	}
}
