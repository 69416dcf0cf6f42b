package wire_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's grpcurl lines do what it says, and without the admin token they
// are refused. Only the address and the path of the token are the test's.
func TestREADMEsLinesWork(t *testing.T) {
	grpcurl, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Fatal("grpcurl is missing: run `make test`, or `make .bin/.grpcurl` and add .bin to PATH")
	}
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- A test runs this block as it stands. -->\n```sh\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("the README has no block that a test runs")
	}
	w := newWorld(t, hello())
	w.up(t)
	_, sha := w.propose(t, "change", files("greeting", "hello you\n"))
	w.shows(t, sha, "forge/test", "success")
	w.decision(t)
	if err := os.WriteFile(filepath.Join(w.dir, "forge-data", "admin-token"), []byte(adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	script := strings.Replace(string(block[1]), "forge=127.0.0.1:9090", "forge="+w.grpc, 1)
	if script == string(block[1]) {
		t.Fatal("the block does not begin with forge's address")
	}
	said := w.shell(t, grpcurl, "set -e\n"+script)
	for _, want := range []string{
		"forge.scheduler.v1.BuildService", "forge.gateway.v1.DeliveryService", `"status": "SERVING"`,
		`"account": "` + owner + `"`, `"sha": "` + sha + `"`, `"state": "STATE_PASSED"`, `"event": "pull_request"`, `"context": "forge/test"`,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the lines do not print %s:\n%s", want, said)
		}
	}

	stranger := strings.ReplaceAll(script, `-H "$admin" `, "")
	said = w.shell(t, grpcurl, stranger)
	if refusals, calls := strings.Count(said, "this call needs the admin token"), strings.Count(script, "$admin"); refusals != calls {
		t.Errorf("%d of %d calls are refused without the admin token:\n%s", refusals, calls, said)
	}
}

func (s *server) shell(t *testing.T, grpcurl, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(grpcurl)+":"+os.Getenv("PATH"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil && strings.HasPrefix(script, "set -e") {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return said.String()
}
