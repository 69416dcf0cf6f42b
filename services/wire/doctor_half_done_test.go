package wire_test

import (
	"bytes"
	"context"
	"database/sql"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// tampered is a GitHub before which somebody changes what it answers at a path: a part of its
// text or, with a code, the whole.
func tampered(t *testing.T, address, path string, code int, before, after string) []string {
	t.Helper()
	target, err := url.Parse(strings.TrimPrefix(address, "FORGE_GITHUB_API_URL="))
	must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(answer *http.Response) error {
		if answer.Request.URL.Path != path {
			return nil
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		if code == 0 {
			text = bytes.ReplaceAll(text, []byte(before), []byte(after))
		} else {
			answer.StatusCode, text = code, []byte(after)
		}
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		answer.Header.Set("Content-Length", strconv.Itoa(len(text)))
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return []string{"FORGE_GITHUB_API_URL=" + server.URL}
}

// What GitHub does not show, or shows to be half done, is named, and what of the machine is not as it should be.
func TestDoctorNamesWhatIsHalfDone(t *testing.T) {
	p := newPatient(t)
	good := p.other(t, same)
	p.base = append(p.base, good...)
	const refusal = `{"message": "this is not for you"}`
	github := func(path string, code int, before, after string) func(*testing.T) []string {
		return func(t *testing.T) []string { t.Helper(); return tampered(t, good[0], path, code, before, after) }
	}
	faults := map[string]ailment{
		"nothing":                    {"", github("/nowhere", 0, "", ""), nil},
		"App not shown":              {"broken App: this is not for you", github("/app", http.StatusForbidden, "", refusal), nil},
		"webhook not shown":          {"broken webhook: GitHub does not show it", github("/app/hook/config", http.StatusForbidden, "", refusal), nil},
		"deliveries not shown":       {"broken deliveries: this is not for you", github("/app/hook/deliveries", http.StatusForbidden, "", refusal), nil},
		"installations not shown":    {"broken installations: this is not for you", github("/app/installations", http.StatusForbidden, "", refusal), nil},
		"permission is not accepted": {"warning installations: octo-org has not accepted Commit statuses: write", github("/app/installations", 0, `"statuses":"write"`, `"statuses":"read"`), nil},
		"teams are not accepted": {"warning installations: octo-org has not accepted Members: read; without it members of those teams", func(t *testing.T) []string {
			teams := p.other(t, func(c *githubsim.Config) { without("")(c); c.Permissions["members"] = "read" })
			return tampered(t, teams[0], "/app/installations", 0, `"members":"read",`, "")
		}, nil},
		"a person has no teams": {"", func(t *testing.T) []string {
			teams := p.other(t, func(c *githubsim.Config) { without("")(c); c.Permissions["members"] = "read" })
			person := tampered(t, teams[0], "/app/installations", 0, `"members":"read",`, "")
			return tampered(t, person[0], "/app/installations", 0, `"type":"Organization"`, `"type":"User"`)
		}, nil},
		"certificate not looked at": {"warning webhook: without looking at Forge's certificate", github("/app/hook/config", 0, `"insecure_ssl":"0"`, `"insecure_ssl":"1"`), nil},
		"address of this machine":   {"warning public address: FORGE_EXTERNAL_URL is http://localhost:1", set("FORGE_EXTERNAL_URL=http://localhost:1", "FORGE_GITHUB_URL=https://github.com"), nil},
		"two certificates": {"warning FORGE_ACME_DOMAINS: a certificate of one's own", func(t *testing.T) []string {
			return append(p.pair(t, "127.0.0.1", time.Now().Add(-time.Hour), 2000*time.Hour), "FORGE_ACME_DOMAINS=127.0.0.1")
		}, nil},
		"certificate that is gone": {"broken FORGE_HTTPS_CERT: no such file", set("FORGE_HTTPS_CERT=/nonexistent", "FORGE_HTTPS_KEY=/nonexistent"), nil},
		"rather little disk": {"warning disk: are free", func(t *testing.T) []string {
			dir, _ := kittest.SmallDisk(t, "2g")
			return []string{"FORGE_DATA_DIR=" + dir}
		}, nil},
	}
	if os.Geteuid() == 0 {
		faults["another's folder"] = ailment{"warning data directory: belongs to the user 12345", func(t *testing.T) []string {
			dir := t.TempDir()
			must(t, os.Chown(dir, 12345, -1))
			return []string{"FORGE_DATA_DIR=" + dir}
		}, nil}
	}
	p.each(t, faults)
}

// Of a Forge that runs, too.
func TestDoctorNamesWhatIsHalfDoneOfAForgeThatRuns(t *testing.T) {
	p := newPatient(t)
	p.begin(t, p.process("forge"))
	p.awaitUp(t)
	hookAt(p.http+"/v1/listen", webhookSecret)(p.sim)
	must(t, p.sim.WaitDeliveries(t.Context()))
	p.each(t, map[string]ailment{
		"nothing":         {"", set(), nil},
		"an older schema": {"warning database: the schema of gateway is older than this program", olderDatabase, nil},
		"it is not ready": {"broken Forge: it runs, and is not ready", func(t *testing.T) []string {
			return []string{"FORGE_GRPC_ADDRESS=" + unready(t)}
		}, nil},
		"nothing was delivered": {"warning deliveries: GitHub has delivered nothing", func(t *testing.T) []string {
			return tampered(t, p.github, "/app/hook/deliveries", http.StatusOK, "", "[]")
		}, nil},
	})
}

// olderDatabase is one that a Forge of before has used.
func olderDatabase(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: "gateway", Migrations: gateway.Migrations()})
	must(t, err)
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)")
		return err
	}))
	must(t, db.Close())
	return []string{"FORGE_DATA_DIR=" + dir}
}

// unready is where a Forge answers that cannot work, since its database does not.
func unready(t *testing.T) (address string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server, states := grpc.NewServer(), health.NewServer()
	states.SetServingStatus(rpc.Ready, healthv1.HealthCheckResponse_NOT_SERVING)
	healthv1.RegisterHealthServer(server, states)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return lis.Addr().String()
}
