package wire_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// diagnosis is what forge doctor prints as JSON.
type diagnosis struct {
	Broken   int `json:"broken"`
	Warnings int `json:"warnings"`
	Findings []struct {
		Check string `json:"check"`
		Level string `json:"level"`
		Text  string `json:"text"`
		Fix   string `json:"fix"`
	} `json:"findings"`
	exit int
	text string
}

// patient is a Forge that forge doctor looks at.
type patient struct {
	*world
	base []string // settings
	hook string   // an address that takes every webhook
}

// examine runs forge doctor with further settings, where the last of a name counts.
func (p *patient) examine(t *testing.T, env []string, args ...string) (d diagnosis) {
	t.Helper()
	must(t, buildBinaries())
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "forge"), append([]string{"doctor", "--json"}, args...)...)
	cmd.Dir, cmd.Env = p.dir, slices.Concat(p.base, env)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		d.exit = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v\n%s%s", err, out, wrong.String())
	}
	d.text = string(out) + wrong.String()
	return d
}

// complaints are what it found wrong, "LEVEL CHECK: TEXT".
func (d diagnosis) complaints() (all []string) {
	for _, f := range d.Findings {
		if f.Level == "broken" || f.Level == "warning" {
			all = append(all, fmt.Sprintf("%s %s: %s", f.Level, f.Check, f.Text))
		}
	}
	return all
}

// is holds it to one finding, "LEVEL CHECK: part of the text", or none, and to a fix.
func (d diagnosis) is(t *testing.T, want string) {
	t.Helper()
	all := d.complaints()
	start, part, _ := strings.Cut(want, ": ")
	if want == "" && len(all) == 0 && d.exit == 0 {
		return
	}
	if want == "" || len(all) != 1 || !strings.HasPrefix(all[0], start+": ") || !strings.Contains(all[0], part) {
		t.Errorf("it finds %q, want %q alone", all, want)
	}
	for _, f := range d.Findings {
		if (f.Fix != "") != (f.Level == "broken" || f.Level == "warning") || strings.Contains(f.Fix, "\n") {
			t.Errorf("the fix of %s (%s) is %q", f.Check, f.Level, f.Fix)
		}
	}
	broken := strings.HasPrefix(want, "broken")
	if (d.exit == 1) != broken || (d.Broken == 1) != broken || (d.Warnings == 1) == broken {
		t.Errorf("exit code %d, %d broken, %d warnings", d.exit, d.Broken, d.Warnings)
	}
}

// other is a GitHub that differs in something, and whose last delivery arrived.
func (p *patient) other(t *testing.T, change func(*githubsim.Config), more ...func(*githubsim.Sim)) (env []string) {
	t.Helper()
	config := githubsim.Config{AppID: appID, AppKey: p.public(t), WebhookURL: p.hook, WebhookSecret: webhookSecret}
	change(&config)
	sim := githubsim.New(config)
	server := httptest.NewServer(sim)
	t.Cleanup(func() { server.Close(); sim.Close() })
	sim.SetURL(server.URL)
	sim.AddInstallation(owner)
	sim.Ping()
	must(t, sim.WaitDeliveries(t.Context()))
	for _, do := range more {
		do(sim)
	}
	must(t, sim.WaitDeliveries(t.Context()))
	return []string{"FORGE_GITHUB_API_URL=" + server.URL}
}

func (p *patient) public(t *testing.T) *rsa.PublicKey {
	t.Helper()
	text, err := os.ReadFile(p.key)
	must(t, err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	must(t, err)
	return &key.PublicKey
}

// answering is a server that answers the same to all.
func answering(t *testing.T, status int) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(server.Close)
	return server.URL
}

// hookAt is a change that has GitHub deliver elsewhere, or with another secret.
func hookAt(address, secret string) func(*githubsim.Sim) {
	return func(sim *githubsim.Sim) {
		sim.SetWebhook(address, secret)
		sim.Ping()
	}
}

func without(permission string) func(*githubsim.Config) {
	return func(c *githubsim.Config) {
		c.Permissions = map[string]string{
			"checks": "write", "contents": "read", "deployments": "write", "issues": "write", "merge_queues": "read", "pull_requests": "write", "statuses": "write",
		}
		delete(c.Permissions, permission)
	}
}

func withoutEvent(event string) func(*githubsim.Config) {
	return func(c *githubsim.Config) {
		all := []string{"check_run", "check_suite", "issue_comment", "merge_group", "pull_request", "push", "release", "repository"}
		c.Events = slices.DeleteFunc(all, func(one string) bool { return one == event })
	}
}

func same(*githubsim.Config) {}

func (p *patient) file(t *testing.T, name, content string, mode os.FileMode) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(content), mode))
	return path
}

func (p *patient) pair(t *testing.T, host string, from time.Time, valid time.Duration) (env []string) {
	t.Helper()
	cert, key, err := rpc.SelfSigned("doctor", []string{host}, from, valid)
	must(t, err)
	return []string{"FORGE_HTTPS_CERT=" + p.file(t, "cert.pem", string(cert), 0o600), "FORGE_HTTPS_KEY=" + p.file(t, "key.pem", string(key), 0o600)}
}

// newPatient is a Forge that does not run yet, of which nothing is wrong.
func newPatient(t *testing.T) *patient {
	t.Helper()
	w := newWorld(t, hello())
	w.lay(t, deployment{})
	forge := w.process("forge")
	p := &patient{world: w, base: forge.env, hook: answering(t, http.StatusOK) + "/v1/listen"}
	for _, arg := range forge.args[1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		p.base = append(p.base, "FORGE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
	}
	return p
}

// ailment is one thing that is wrong, and what forge doctor says of it.
type ailment struct {
	want string
	env  func(*testing.T) []string
	args []string
}

func set(env ...string) func(*testing.T) []string { return func(*testing.T) []string { return env } }

func (p *patient) each(t *testing.T, faults map[string]ailment) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			f := faults[name]
			d := p.examine(t, f.env(t), f.args...)
			d.is(t, f.want)
			for _, secret := range []string{webhookSecret, adminToken, secretsKey, "PRIVATE KEY", "hush"} {
				if strings.Contains(d.text, secret) {
					t.Errorf("it tells of %q:\n%s", secret, d.text)
				}
			}
		})
	}
}

// newPatientKey is a key that GitHub does not know.
func newPatientKey(t *testing.T) (file string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	file = filepath.Join(t.TempDir(), "key.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
	return file
}

// newerDatabase is one that a Forge of some day has used.
func newerDatabase(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: "gateway", Migrations: gateway.Migrations()})
	must(t, err)
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)")
		return err
	}))
	must(t, db.Close())
	return []string{"FORGE_DATA_DIR=" + dir}
}
