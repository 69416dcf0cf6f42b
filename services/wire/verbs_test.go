package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// verb runs a verb of the forge tool as the admin of this Forge would.
func (s *server) verb(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	return s.fed(t, "", args...)
}

// fed is verb with something to read on its standard input.
func (s *server) fed(t *testing.T, stdin string, args ...string) (out string, err error) {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binDir, "forge"), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"FORGE_GRPC_ADDRESS=" + s.grpc, "FORGE_ADMIN_TOKEN=" + adminToken, "TZ=UTC"}
	cmd.Stdin = strings.NewReader(stdin)
	var said, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complaint
	err = cmd.Run()
	if err != nil {
		return complaint.String(), err
	}
	return said.String(), nil
}

// says runs a verb that succeeds and prints the text.
func (s *server) says(t *testing.T, text string, args ...string) string {
	t.Helper()
	out, err := s.verb(t, args...)
	if err != nil || !strings.Contains(out, text) {
		t.Errorf("forge %s: %v\n%swant %q", strings.Join(args, " "), err, out, text)
	}
	return out
}

func TestVerbsTellWhatBecameOfDeliveries(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	_, sha := w.propose(t, "change", files("greeting", "hello again\n"))
	w.shows(t, sha, "forge/test", "success")
	w.says(t, "pull_request opened", "deliveries", "--event=pull_request", "--repository="+owner+"/"+repo, "--limit=1")
	w.says(t, "no deliveries", "deliveries", "list", "--state=kept")
	var list gatewayv1.ListDeliveriesResponse
	text := w.says(t, "STATE_DECIDED", "deliveries", "list", "--event=pull_request", "--since=1h", "--json")
	if err := protojson.Unmarshal([]byte(text), &list); err != nil || len(list.GetDeliveries()) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	id := list.GetDeliveries()[0].GetId()
	before := w.says(t, "scheduler   built", "deliveries", "show", id)
	if !json.Valid([]byte(w.says(t, sha, "deliveries", "show", id, "--payload"))) {
		t.Error("the payload is not what GitHub sent")
	}
	w.says(t, id+" is decided again", "deliveries", "redeliver", id)
	kittest.Eventually(t, patience, func() error {
		if again, err := w.verb(t, "deliveries", "show", id); err != nil || again != before { // who has acted answers as before
			return errors.New(again)
		}
		return nil
	})
	w.says(t, "Pull requests that changed and no delivery told of: 0.", "recover")
	for want, args := range map[string][]string{
		"no delivery nope": {"deliveries", "show", "nope"},
		"no Forge answers at 127.0.0.1:1: set FORGE_GRPC_ADDRESS": {"deliveries", "--grpc-address=127.0.0.1:1"},
		"no Forge answers at 127.0.0.1:2: set FORGE_GRPC_ADDRESS": {"logs", "nope", "--grpc-address=127.0.0.1:2"},
		"the admin token is wrong":                                {"recover", "--admin-token=other"},
		`--state must be one of "pending","decided","kept"`:       {"deliveries", "--state=odd"},
		"--limit: expected 1 or more":                             {"deliveries", "--limit=0"},
		"--since: expected a duration such as 90m or 72h":         {"deliveries", "--since=yesterday"},
		"such as 90m or 72h but got \"-72h\"":                     {"recover", "--since=-72h"},
		"see forge deliveries show --help":                        {"deliveries", "show"},
	} {
		if out, err := w.verb(t, args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func TestVerbsSteerBuildsAndEnvironmentsAndTellOfReports(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	name := owner + "/" + repo
	_, sha := w.propose(t, "slow", files("test.sh", "#!/bin/sh\nsleep 300\n"))
	w.shows(t, sha, "forge/test", "pending")
	id := w.builds(t, sha)[0].GetId()
	w.says(t, id+"  "+name+"  test #1  "+sha[:7], "builds", "--state=queued,starting,running", "--repository="+name)
	w.says(t, id, "builds", "cancel", id, "--message=enough is enough")
	w.shows(t, sha, "forge/test", "error")
	w.says(t, "cancelled: enough is enough", "builds", "show", id)
	again := w.says(t, `"retryOf": "`+id+`"`, "builds", "retry", id, "--json")
	w.says(t, "an administrator", "builds", "create", name, "--branch=main")

	good := w.deploys(t, "good")
	w.shows(t, good, "forge/deploy-staging", "success")
	deploy := w.runs(t, func(b *schedulerv1.Build) bool { return b.GetSha() == good }).GetId()
	w.says(t, "no file asks for a schedule", "schedules")
	w.says(t, good[:7]+" by "+deploy, "environments", "--repository="+name)
	w.says(t, ": the fair is on", "environments", "freeze", name, "staging", "the fair is on")
	w.says(t, "deploy-staging #2", "environments", "roll-back", name, "staging", deploy)
	w.says(t, "staging of "+name, "environments", "unfreeze", name, "staging")
	w.says(t, "staging of "+name, "environments", "show", name, "staging")

	var list reporterv1.ListTargetsResponse
	text := w.says(t, "forge/test", "reports", "--sha="+sha, "--json")
	if err := protojson.Unmarshal([]byte(text), &list); err != nil || len(list.GetTargets()) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	target := list.GetTargets()[0].GetId()
	w.says(t, "status forge/test", "reports", "--repository="+name)
	w.says(t, "POST /repos/"+name+"/statuses/"+sha+" → 201", "reports", "show", target)
	w.says(t, target, "reports", "retry", target)
	if !json.Valid([]byte(again)) {
		t.Errorf("no JSON: %s", again)
	}
	for want, args := range map[string][]string{
		"no build nope: there never was one":      {"builds", "show", "nope"},
		"--sha: expected the id of a commit":      {"builds", "--sha=" + sha[:7]},
		"has ended already":                       {"builds", "cancel", id},
		"does not wait for approval":              {"builds", "approve", id},
		"nothing was ever to be deployed to moon": {"environments", "show", name, "moon"},
		"is no successful deploy to staging":      {"environments", "roll-back", name, "staging", id},
		"--state must be one of":                  {"reports", "--state=odd"},
	} {
		if out, err := w.verb(t, args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
