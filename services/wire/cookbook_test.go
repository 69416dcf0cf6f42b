package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// besides are what the page names in passing: the answer at hand need not hold it.
func besides() []string {
	return []string{
		"NOT_SERVING", "STATE_QUEUED", "STATE_RUNNING", "STATE_CANCELLED", "forge logs", "ReadLog", "-d @", "forge.scheduler.v1.ListBuildsRequest", "error", "difference",
		`"follow": true`, `"force": true`, `"state": "STATE_KEPT"`, `"states": ["STATE_FAILING", "STATE_KEPT"]`, "manual", ".forge.yml", "file", "-C -",
	}
}

// Each call of the cookbook is run as it stands, and what the page says that it gives
// is in the answer.
func TestEachRecipeOfTheCookbookWorks(t *testing.T) {
	grpcurl, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Fatal("grpcurl is missing: run `make test`, or `make .bin/.grpcurl` and add .bin to PATH")
	}
	page, err := os.ReadFile("../../docs/cookbook.md")
	must(t, err)
	recipe := regexp.MustCompile("(?s)### (\\d+)\\. ([^\n]+)\n\n(?:[^`\n#][^\n]*\n+)*```sh\n(.*?)```\n\n((?:Gives|Refused)[^\n]*)\n")
	quoted := regexp.MustCompile("`([^`]+)`")
	recipes := recipe.FindAllStringSubmatch(string(page), -1)
	if blocks := strings.Count(string(page), "```sh"); len(recipes) != blocks || blocks < 20 {
		t.Fatalf("%d recipes are read of %d blocks", len(recipes), blocks)
	}
	w, env := kitchen(t, grpcurl)
	for n, r := range recipes {
		number, title, script, says := r[1], r[2], r[3], r[4]
		if number != strconv.Itoa(n+1) {
			t.Errorf("%s. %s is the %dth", number, title, n+1)
		}
		cmd := exec.Command("sh", "-c", "set -e\n"+script)
		cmd.Dir, cmd.Env = w.dir, env
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		err := cmd.Run()
		if refused := strings.HasPrefix(says, "Refused"); refused != (err != nil) {
			t.Errorf("%s. %s: %v\n%s", number, title, err, said.String())
			continue
		}
		for _, word := range quoted.FindAllStringSubmatch(says, -1) {
			if !slices.Contains(besides(), word[1]) && !strings.Contains(said.String(), word[1]) {
				t.Errorf("%s. %s: the answer has no %s:\n%s", number, title, word[1], said.String())
			}
		}
		if strings.Contains(said.String(), "a-secret-value") {
			t.Errorf("%s. %s shows a secret", number, title)
		}
	}
}

// kitchen is a Forge that has one of each, and the variables that the page names.
func kitchen(t *testing.T, grpcurl string) (*world, []string) {
	t.Helper()
	all := hello()
	all[".forge.yml"] = lines(
		"image: busybox", "execute: ./test.sh", "artifacts: [{name: words, paths: [greeting]}]", "schedule: [{name: nightly, cron: 17 3 * * *, execute: 'echo night'}]",
		"manual: {execute: 'echo by hand'}", "deploy: {staging: {run: 'echo staging'}, production: {run: 'echo production', approval: true}}",
	)
	w := newWorld(t, all)
	w.env = append(w.env, "FORGE_OAUTH_CLIENT_ID=client", "FORGE_OAUTH_CLIENT_SECRET=hush", "FORGE_BUILD_LINKS=open", "FORGE_CAPACITY=4")
	w.sim.SetOAuth(githubsim.OAuth{ClientID: "client", ClientSecret: "hush", DeviceFlow: true})
	w.up(t)
	number, broken := w.propose(t, "broken", files("greeting", "good-bye\n"))
	w.shows(t, broken, "forge/test", "failure")
	if number != 1 {
		t.Fatalf("the first pull request is #%d", number)
	}
	id := w.builds(t, broken)[0].GetId()
	good := w.deploys(t, "good")
	w.shows(t, good, "forge/deploy-staging", "success")
	deploy := w.runs(t, func(b *schedulerv1.Build) bool { return b.GetSha() == good })
	production := w.merge(t, w.promotion(t).Number)
	blocked := ""
	kittest.Eventually(t, patience, func() error {
		for _, b := range w.builds(t, production) {
			if b.GetState() == schedulerv1.Build_STATE_BLOCKED {
				blocked = b.GetId()
				return nil
			}
		}
		return fmt.Errorf("no deploy of %s is blocked", production)
	})
	_, slow := w.propose(t, "slow", files("test.sh", "#!/bin/sh\nsleep 300\n"))
	w.shows(t, slow, "forge/test", "pending")
	target, err := reporterv1.NewReporterServiceClient(w.dial(t, "reporter")).ListTargets(asAdmin(t.Context()), &reporterv1.ListTargetsRequest{Sha: broken})
	must(t, err)
	told, err := gatewayv1.NewDeliveryServiceClient(w.dial(t, "gateway")).ListDeliveries(asAdmin(t.Context()), &gatewayv1.ListDeliveriesRequest{Event: "pull_request", Sha: broken})
	must(t, err)
	env := append(os.Environ(), "PATH="+filepath.Dir(grpcurl)+":"+os.Getenv("PATH"))
	for name, value := range map[string]string{
		"forge": w.grpc, "url": w.http, "FORGE_ADMIN_TOKEN": adminToken, "repo": owner + "/" + repo, "sha": broken, "build": id, "running": w.builds(t, slow)[0].GetId(),
		"deploy": deploy.GetId(), "blocked": blocked, "delivery": told.GetDeliveries()[0].GetId(), "target": target.GetTargets()[0].GetId(),
		"value": "a-secret-value", "personal": personal(t, w, "rita"),
	} {
		env = append(env, name+"="+value)
	}
	return w, env
}

// personal is a token that somebody has made by the device flow.
func personal(t *testing.T, w *world, login string) (token string) {
	t.Helper()
	ask := func(what, body string) (answer map[string]string) {
		got, err := http.Post(w.http+"/v1/sign-in:"+what, "application/json", strings.NewReader(body))
		must(t, err)
		defer func() { _ = got.Body.Close() }()
		fields := map[string]any{}
		must(t, json.NewDecoder(got.Body).Decode(&fields))
		answer = map[string]string{}
		for name, value := range fields {
			answer[name] = fmt.Sprint(value)
		}
		return answer
	}
	begun := ask("start", "{}")
	must(t, w.sim.EnterDeviceCode(login, begun["userCode"], true))
	done := ask("finish", `{"deviceCode": "`+begun["deviceCode"]+`", "name": "cookbook"}`)
	if done["token"] == "" {
		t.Fatalf("GitHub does not let %s sign in: %v", login, done)
	}
	return done["token"]
}
