package standalone_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// verb runs a verb of the forge tool as the admin of this Forge would.
func (w *world) verb(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binDir, "forge"), args...)
	cmd.Dir = w.dir
	cmd.Env = []string{"FORGE_GRPC_ADDRESS=" + w.grpc, "FORGE_ADMIN_TOKEN=" + adminToken, "TZ=UTC"}
	var said, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complaint
	err = cmd.Run()
	if err != nil {
		return complaint.String(), err
	}
	return said.String(), nil
}

// says runs a verb that succeeds and prints the text.
func (w *world) says(t *testing.T, text string, args ...string) string {
	t.Helper()
	out, err := w.verb(t, args...)
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
	var list struct {
		Deliveries []struct{ ID, State string }
	}
	text := w.says(t, "STATE_DECIDED", "deliveries", "list", "--event=pull_request", "--since=1h", "--json")
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Deliveries) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	id := list.Deliveries[0].ID
	before := w.says(t, "scheduler   built", "deliveries", "show", id)
	if !json.Valid([]byte(w.says(t, sha, "deliveries", "show", id, "--payload"))) {
		t.Error("the payload is not what GitHub sent")
	}
	w.says(t, id+" is decided again", "deliveries", "redeliver", id)
	kittest.Eventually(t, settleWithin, func() error {
		if again, err := w.verb(t, "deliveries", "show", id); err != nil || again != before { // who has acted answers as before
			return errors.New(again)
		}
		return nil
	})
	w.says(t, "Pull requests that changed and no delivery told of: 0.", "recover")
	for want, args := range map[string][]string{
		"no delivery nope":         {"deliveries", "show", "nope"},
		"(FORGE_GRPC_ADDRESS)":     {"deliveries", "--grpc-address=127.0.0.1:1"},
		"the admin token is wrong": {"recover", "--admin-token=other"},
		"--state must be one of":   {"deliveries", "--state=odd"},
	} {
		if out, err := w.verb(t, args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
