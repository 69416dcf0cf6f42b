package wire_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Each thing that can be wrong of a Forge that does not run is named, and nothing else.
func TestDoctorNamesWhatIsWrongBeforeAStart(t *testing.T) {
	p := newPatient(t)
	other := p.other
	github := func(change func(*githubsim.Config), more ...func(*githubsim.Sim)) func(*testing.T) []string {
		return func(t *testing.T) []string { t.Helper(); return other(t, change, more...) }
	}
	good := p.other(t, same)
	p.base = append(p.base, good...)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = taken.Close() }()
	_, takenPort, err := net.SplitHostPort(taken.Addr().String())
	must(t, err)
	p.each(t, map[string]ailment{
		"nothing": {"", set(), nil},

		"App ID":            {"broken App: GitHub knows no App with the ID 8", set("FORGE_GITHUB_APP_ID=8"), nil},
		"no App ID":         {"broken App: FORGE_GITHUB_APP_ID is missing", set("FORGE_GITHUB_APP_ID="), nil},
		"another App's key": {"broken App: the private key is none of App 7's", func(t *testing.T) []string { return []string{"FORGE_GITHUB_PRIVATE_KEY_FILE=" + newPatientKey(t)} }, nil},
		"key that is none": {"broken App: not a PEM RSA key", func(t *testing.T) []string {
			return []string{"FORGE_GITHUB_PRIVATE_KEY_FILE=" + p.file(t, "k", "hush", 0o600)}
		}, nil},
		"key that is gone": {"broken App: no such file", set("FORGE_GITHUB_PRIVATE_KEY_FILE=/nonexistent"), nil},
		"key for everybody": {"warning private key: can be read by others", func(t *testing.T) []string {
			text, err := os.ReadFile(p.key)
			must(t, err)
			return []string{"FORGE_GITHUB_PRIVATE_KEY_FILE=" + p.file(t, "k", string(text), 0o644)}
		}, nil},
		"no webhook secret": {"broken webhook secret: FORGE_WEBHOOK_SECRETS is missing", set("FORGE_WEBHOOK_SECRETS="), nil},
		"key of secrets":    {"broken key of secrets: FORGE_SECRETS_KEY: key 1 is not of 64 hexadecimal digits", set("FORGE_SECRETS_KEY=xx"), nil},
		"key of sessions":   {"broken key of sessions: FORGE_SESSIONS_KEY: key 1 is not", set("FORGE_SESSIONS_KEY=xx", "FORGE_OAUTH_CLIENT_ID=Iv1", "FORGE_OAUTH_CLIENT_SECRET=hush"), nil},
		"setting of engine": {"broken engine: FORGE_BUILD_PULL cannot hold", set("FORGE_BUILD_PULL=always"), nil},
		"trace address":     {"broken trace address: FORGE_TRACE_URL is", set("FORGE_TRACE_URL=foo"), nil},
		"no address":        {"broken public address: which is no address", set("FORGE_EXTERNAL_URL=forge"), nil},

		"GitHub away":         {"broken GitHub's API: does not answer", set("FORGE_GITHUB_API_URL=http://127.0.0.1:1"), nil},
		"GitHub is another's": {"broken GitHub's API: is not GitHub's API", func(t *testing.T) []string { return []string{"FORGE_GITHUB_API_URL=" + answering(t, http.StatusOK)} }, nil},
		"clock ahead":         {"broken clock: ahead of GitHub's", github(func(c *githubsim.Config) { c.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) } }), nil},
		"clock behind":        {"broken clock: behind GitHub's", github(func(c *githubsim.Config) { c.Now = func() time.Time { return time.Now().Add(10 * time.Minute) } }), nil},
		"clock a little off":  {"warning clock: behind GitHub's", github(func(c *githubsim.Config) { c.Now = func() time.Time { return time.Now().Add(12 * time.Second) } }), nil},
		"needed permission":   {"broken permissions: Commit statuses: write, for showing how a build went; without it GitHub shows no result", github(without("statuses")), nil},
		"lower permission":    {"broken permissions: Pull requests: write", github(func(c *githubsim.Config) { without("")(c); c.Permissions["pull_requests"] = "read" }), nil},
		"permission":          {"warning permissions: Issues: write", github(without("issues")), nil},
		"checks, reported":    {"broken permissions: FORGE_REPORT is checks", func(t *testing.T) []string { return append(p.other(t, without("checks")), "FORGE_REPORT=checks") }, nil},
		"teams of admins":     {"warning permissions: Members: read", set("FORGE_ADMINS=acme/ops"), nil},
		"needed event":        {"broken events: the event Pull request", github(withoutEvent("pull_request")), nil},
		"event":               {"warning events: the event Release, for builds of releases", github(withoutEvent("release")), nil},
		"installed nowhere":   {"warning installations: installed nowhere", github(same, func(s *githubsim.Sim) { _ = s.Uninstall(owner) }), nil},
		"suspended":           {"warning installations: octo-org is suspended", github(same, func(s *githubsim.Sim) { _ = s.SuspendInstallation(owner) }), nil},
		"webhook elsewhere": {"broken webhook: where Forge takes nothing", github(same, func(s *githubsim.Sim) {
			s.SetWebhook(strings.TrimSuffix(p.hook, "/v1/listen")+"/webhook", webhookSecret)
		}), nil},
		"webhook off":      {"broken webhook: has no webhook address", github(same, func(s *githubsim.Sim) { s.SetWebhook("", webhookSecret) }), nil},
		"webhook unsigned": {"broken webhook: has no secret", github(same, func(s *githubsim.Sim) { s.SetWebhook(p.hook, "") }), nil},
		"deliveries lost": {"warning deliveries: 2 of the last", github(same, func(s *githubsim.Sim) {
			s.DropDeliveries(2)
			_ = s.SuspendInstallation(owner)
			_ = s.UnsuspendInstallation(owner)
			s.Ping()
		}), nil},

		"HTTP port":         {"broken HTTP: address already in use", set("FORGE_PORT=" + takenPort), nil},
		"gRPC port":         {"broken gRPC: address already in use", set("FORGE_GRPC_ADDRESS=127.0.0.1:" + takenPort), nil},
		"certificate ended": {"broken FORGE_HTTPS_CERT: ended on", func(t *testing.T) []string { return p.pair(t, "127.0.0.1", time.Now().Add(-48*time.Hour), time.Hour) }, nil},
		"certificate to come": {"broken FORGE_HTTPS_CERT: begins on", func(t *testing.T) []string {
			return p.pair(t, "127.0.0.1", time.Now().Add(48*time.Hour), 1000*time.Hour)
		}, nil},
		"certificate ends": {"warning FORGE_HTTPS_CERT: ends on", func(t *testing.T) []string { return p.pair(t, "127.0.0.1", time.Now().Add(-time.Hour), 72*time.Hour) }, nil},
		"certificate of other": {"broken FORGE_HTTPS_CERT: not for 127.0.0.1", func(t *testing.T) []string {
			return p.pair(t, "other.example", time.Now().Add(-time.Hour), 2000*time.Hour)
		}, nil},
		"certificate's key": {"broken FORGE_HTTPS_CERT: private key does not match", func(t *testing.T) []string {
			good, bad := p.pair(t, "127.0.0.1", time.Now(), time.Hour), p.pair(t, "127.0.0.1", time.Now(), time.Hour)
			return []string{good[0], bad[1]}
		}, nil},

		"no git": {"broken git: there is no git program", set("PATH=/nonexistent"), nil},
		"old git": {"broken git: Forge needs git 2.39", func(t *testing.T) []string {
			return []string{"PATH=" + filepath.Dir(p.file(t, "git", "#!/bin/sh\necho git version 2.30.2\n", 0o755))}
		}, nil},
		"docker":   {"broken engine: does not answer", set("FORGE_ENGINE=docker", "DOCKER_HOST=unix:///nonexistent"), nil},
		"runner":   {"broken runner address: the path has", set("FORGE_RUNNER_ADDRESS=unix:///tmp/" + strings.Repeat("x", 120)), nil},
		"blobs":    {"broken blobs: /dev/null/blobs", set("FORGE_BLOB_URL=file:///dev/null/blobs"), nil},
		"blob URL": {"broken blobs: unknown scheme", set("FORGE_BLOB_URL=gopher://x"), nil},
		"database file": {"broken database: gateway", func(t *testing.T) []string {
			return []string{"FORGE_DATA_DIR=" + filepath.Dir(p.file(t, "gateway.db", strings.Repeat("no database, ", 1000), 0o600))}
		}, nil},
		"PostgreSQL":                {"broken database: gateway", set("FORGE_DATABASE_URL=postgres://forge:hush-hush@127.0.0.1:1/forge", "FORGE_SECRETS_KEY="+secretsKey), nil},
		"database of a newer Forge": {"broken database: it is of a newer Forge: the schema of gateway is at version 99999", newerDatabase, nil},
		"little disk": {"broken disk: are free", func(t *testing.T) []string {
			dir, _ := kittest.SmallDisk(t, "8m")
			return []string{"FORGE_DATA_DIR=" + dir}
		}, nil},
		"PostgreSQL that is read from alone": {"broken database: gateway: it cannot be written to", func(t *testing.T) []string {
			kittest.Require(t, "postgres")
			address := kittest.PostgresURL(t)
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: address, Room: "gateway", Migrations: gateway.Migrations()})
			must(t, err)
			must(t, db.Close())
			return []string{"FORGE_DATABASE_URL=" + address + "&options=-c%20default_transaction_read_only%3Don", "FORGE_SECRETS_KEY=" + secretsKey}
		}, nil},
		"another version": {"warning version: the Forge that runs is v0.0.1", func(t *testing.T) []string {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"status": "up", "version": "v0.0.1"}`))
			}))
			t.Cleanup(server.Close)
			return []string{"FORGE_PORT=" + server.URL[strings.LastIndex(server.URL, ":")+1:]}
		}, nil},
	})
}

// Of one that runs, too, and GitHub's ping shows what it can.
func TestDoctorNamesWhatIsWrongOfAForgeThatRuns(t *testing.T) {
	p := newPatient(t)
	p.begin(t, p.process("forge"))
	p.awaitUp(t)
	here := p.http + "/v1/listen"
	after := func(changes ...func(*githubsim.Sim)) func(*testing.T) []string {
		return func(t *testing.T) []string {
			for _, change := range changes {
				change(p.sim)
				must(t, p.sim.WaitDeliveries(t.Context()))
			}
			return nil
		}
	}
	answers := func(status int) func(*testing.T) []string {
		return func(t *testing.T) []string {
			return after(hookAt(answering(t, status)+"/v1/listen", webhookSecret))(t)
		}
	}
	good := after(hookAt(here, webhookSecret))
	p.each(t, map[string]ailment{
		"nothing":             {"", good, nil},
		"mended since":        {"", after(hookAt("http://127.0.0.1:1/v1/listen", webhookSecret), func(s *githubsim.Sim) { s.SetWebhook(here, webhookSecret) }), nil},
		"webhook secret":      {"broken webhook secret: GitHub signs with another secret", after(hookAt(here, "another")), nil},
		"webhook unreachable": {"broken webhook: GitHub does not reach it", after(hookAt("http://127.0.0.1:1/v1/listen", webhookSecret)), nil},
		"webhook refused":     {"broken webhook: takes webhooks from other addresses", answers(http.StatusForbidden), nil},
		"webhook astray":      {"broken webhook: something else than Forge answers", answers(http.StatusNotFound), nil},
		"webhook failing":     {"broken webhook: was answered with 502", answers(http.StatusBadGateway), nil},
		"HTTP elsewhere": {"broken HTTP: a Forge runs, and nothing listens on", func(t *testing.T) []string {
			return append(good(t), fmt.Sprintf("FORGE_PORT=%d", kittest.FreePort(t)))
		}, nil},
		"public address": {"warning public address: does not lead to this Forge", func(t *testing.T) []string { return append(good(t), "FORGE_EXTERNAL_URL=http://127.0.0.1:1") }, nil},
		"certificate of the public address": {"broken public address: shows a certificate that is not accepted", func(t *testing.T) []string {
			server := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(server.Close)
			return append(good(t), "FORGE_EXTERNAL_URL="+server.URL)
		}, nil},
	})
}

// A container is really run, and shows whether builds get where they must.
func TestDoctorRunsAContainer(t *testing.T) {
	kittest.Require(t, "docker")
	p := newPatient(t)
	p.base = append(p.base, p.other(t, same)...)
	p.base = append(p.base, "FORGE_ENGINE=docker")
	loopback := "FORGE_RUNNER_ADDRESS=" + kittest.FreeAddress(t)
	p.each(t, map[string]ailment{
		"nothing":              {"", set(), nil},
		"runner on loopback":   {"broken runner address: does not reach 127.0.0.1:", set(loopback), nil},
		"folder of the runner": {"broken engine: /forge/runner/forgexec: no such file", set("FORGE_BUILD_RUNNER_DIR=" + t.TempDir()), nil},
	})
}

// Where the services run apart, each is asked.
func TestDoctorAsksEachServiceThatRunsApart(t *testing.T) {
	p := newPatient(t)
	nowhere := "127.0.0.1:1"
	d := p.examine(t, append(p.other(t, same), "FORGE_CONFIG_URL="+nowhere, "FORGE_SCHEDULER_URL="+nowhere, "FORGE_REPORTER_URL="+nowhere), "--apart")
	var named []string
	for _, one := range d.complaints() {
		level, _, _ := strings.Cut(one, ":")
		named = append(named, level)
	}
	slices.Sort(named)
	if want := []string{"broken config", "broken gateway", "broken reporter", "broken scheduler"}; !slices.Equal(named, want) || d.exit != 1 {
		t.Errorf("it finds %q, want %q", named, want)
	}
}
