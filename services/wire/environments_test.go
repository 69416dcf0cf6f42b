package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func (w *world) staging(t *testing.T, verb, body string) string {
	t.Helper()
	return w.place(t, "staging", verb, body)
}

// place asks the JSON API about an environment; with a verb it steers it.
func (w *world) place(t *testing.T, name, verb, body string) string {
	t.Helper()
	method, url := http.MethodGet, w.http+"/v1/environments/"+owner+"/"+repo+"/"+name
	if verb != "" {
		method, url = http.MethodPost, url+":"+verb
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	answer, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s", method, url, answer.Status, text)
	}
	return string(text)
}

// runs waits until staging runs such a build's deploy, and returns it.
func (w *world) runs(t *testing.T, such func(*schedulerv1.Build) bool) *schedulerv1.Build {
	t.Helper()
	answer := &schedulerv1.GetEnvironmentResponse{}
	kittest.Eventually(t, patience, func() error {
		must(t, protojson.Unmarshal([]byte(w.staging(t, "", "")), answer))
		if !such(answer.GetEnvironment().GetDeployed()) {
			return fmt.Errorf("staging runs %v", answer.GetEnvironment().GetDeployed())
		}
		return nil
	})
	return answer.GetEnvironment().GetDeployed()
}

// deploys merges a change and returns the commit that is to be deployed.
func (w *world) deploys(t *testing.T, branch string) (sha string) {
	t.Helper()
	number, _ := w.propose(t, branch, files(branch, "a file\n"))
	return w.merge(t, number)
}

func TestFreezeAndRollBack(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	good := w.deploys(t, "good")
	w.shows(t, good, "forge/deploy-staging", "success")
	deploy := w.runs(t, func(b *schedulerv1.Build) bool { return b.GetSha() == good })
	bad := w.deploys(t, "bad")
	w.shows(t, bad, "forge/deploy-staging", "success")

	w.staging(t, "freeze", `{"message": "the bad one must go"}`)
	next := w.deploys(t, "next")
	if status := w.shows(t, next, "forge/deploy-staging", "pending"); status.Description != "Waiting: staging is frozen: the bad one must go" {
		t.Errorf("the status says %q", status.Description)
	}
	w.staging(t, "rollBack", `{"build_id": "`+deploy.GetId()+`"}`)
	back := w.runs(t, func(b *schedulerv1.Build) bool { return b.GetRollBackOf() == deploy.GetId() })
	if log := w.log(t, back.GetUrl()); !strings.Contains(log, "staging "+good) {
		t.Errorf("the roll back printed %q", log)
	}
	if status := w.shows(t, good, "forge/deploy-staging", "success"); !strings.HasSuffix(status.TargetURL, back.GetId()) {
		t.Errorf("the status leads to %s, want the roll back", status.TargetURL)
	}
	w.staging(t, "unfreeze", "{}")
	w.shows(t, next, "forge/deploy-staging", "success")
	w.runs(t, func(b *schedulerv1.Build) bool { return b.GetSha() == next })
}

// A merge that GitHub tells of after the one that followed it is not deployed.
func TestLateMerge(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	number, head := w.propose(t, "first", files("first", "a file\n"))
	w.shows(t, head, "forge/test", "success")
	must(t, w.sim.WaitDeliveries(t.Context()))
	w.sim.DropDeliveries(2) // push and pull_request
	first := w.merge(t, number)
	must(t, w.sim.WaitDeliveries(t.Context()))
	second := w.deploys(t, "second")
	w.shows(t, second, "forge/deploy-staging", "success")

	w.deliverDropped(t, "pull_request")
	deployed := w.runs(t, func(b *schedulerv1.Build) bool { return b.GetSha() == second })
	w.until(t, "pull_request", "already contained in build "+deployed.GetId())
	if late := w.builds(t, first); len(late) != 0 {
		t.Errorf("built %v", late)
	}
}
