package settings_test

import (
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	kit "github.com/forge-ci/forge/services/kit/settings"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

var tel = &telemetry.Telemetry{}

// Each setting stands once in the table that people look in, with its flag and
// its default.
func TestEverySettingIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if name, ok := strings.CutPrefix(line, "| `FORGE_"); ok {
			name, row, _ := strings.Cut(name, "`")
			if rows["FORGE_"+name] != "" {
				t.Errorf("FORGE_%s is documented twice", name)
			}
			rows["FORGE_"+name] = row
		}
	}
	for _, s := range kit.Names(&settings.All{}, kong.Vars{"grpc_address": "127.0.0.1:9090", "engines": "process"}) {
		row := rows[s.Env]
		if !strings.Contains(row, "`--"+s.Flag+"`") {
			t.Errorf("docs/operating.md has no row with %s and --%s", s.Env, s.Flag)
		}
		if s.Default != "" && !strings.Contains(row, "`"+s.Default+"`") {
			t.Errorf("docs/operating.md does not say that %s defaults to %s", s.Env, s.Default)
		}
		delete(rows, s.Env)
	}
	for name := range rows {
		if name != "FORGE_CONFIG" { // the kit's own
			t.Errorf("docs/operating.md documents %s, which is no setting", name)
		}
	}
}

func TestAdminTokenIsMadeOnceAndPrivate(t *testing.T) {
	common := settings.Common{DataDir: t.TempDir() + "/data"}
	first, err := common.Admin()
	if err != nil {
		t.Fatal(err)
	}
	if len(first) < 26 {
		t.Errorf("the token %q holds less than 128 bits", first)
	}
	again, err := common.Admin()
	if err != nil || again != first {
		t.Errorf("second start: token %q, error %v; want the first one's", again, err)
	}
	info, err := os.Stat(common.DataDir + "/admin-token")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin-token: %v, %v", info.Mode(), err)
	}
	common.AdminToken = "chosen"
	if set, err := common.Admin(); set != "chosen" || err != nil {
		t.Errorf("token %q, error %v; want the one that is set", set, err)
	}
}

func TestMissingAppSettingsSayWhereToGetThem(t *testing.T) {
	for want, app := range map[string]settings.App{
		"FORGE_GITHUB_APP_ID is missing":           {},
		"FORGE_GITHUB_PRIVATE_KEY_FILE is missing": {GitHubAppID: 7},
		"no such file": {GitHubAppID: 7, GitHubPrivateKeyFile: "/no/such/key.pem"},
	} {
		if _, err := app.Key(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", app, err, want)
		}
	}
	if _, err := (settings.Gateway{}).Secrets(); err == nil || !strings.Contains(err.Error(), "FORGE_WEBHOOK_SECRETS is missing") {
		t.Errorf("no webhook secret: error %v", err)
	}
}

func TestAddressBeyondLoopbackNeedsCredentials(t *testing.T) {
	for address, rooms := range map[string]settings.Rooms{
		"0.0.0.0:9091":     {},
		"[::]:9091":        {},
		"192.0.2.1:9091":   {},
		":9091":            {},
		"config.test:9091": {},
	} {
		if _, err := rooms.Server("config", address, "admin", tel); err == nil || !strings.Contains(err.Error(), "FORGE_ROOM_TOKENS") {
			t.Errorf("%s without credentials: error %v", address, err)
		}
		rooms.RoomTokens = map[string]string{"gateway": "secret"}
		if cfg, err := rooms.Server("config", address, "admin", tel); err != nil || cfg.TrustLoopback {
			t.Errorf("%s with tokens: trusts loopback %v, error %v", address, cfg.TrustLoopback, err)
		}
	}
	for _, address := range []string{"127.0.0.1:9091", "localhost:9091", "[::1]:9091"} {
		if cfg, err := (settings.Rooms{}).Server("config", address, "admin", tel); err != nil || !cfg.TrustLoopback {
			t.Errorf("%s: trusts loopback %v, error %v", address, cfg.TrustLoopback, err)
		}
	}
}

func TestHalfATLSSettingIsRefused(t *testing.T) {
	rooms := settings.Rooms{Certificate: settings.Certificate{TLSCert: "cert.pem"}}
	if _, err := rooms.Peer("gateway", tel); err == nil || !strings.Contains(err.Error(), "go together") {
		t.Errorf("a certificate without a key: error %v", err)
	}
}

func TestRunnerSocketIsTheOnlyFileOfItsFolder(t *testing.T) {
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r, err := settings.Scheduler{}.ListenRunner(t.Context(), dir, settings.Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if r.URL != "unix://"+dir+"/runner/runner.sock" || r.CA != "" || r.TLS != nil {
		t.Errorf("forgexec is told %s, to trust %q", r.URL, r.CA)
	}
	if files, err := os.ReadDir(dir + "/runner"); err != nil || len(files) != 1 {
		t.Errorf("beside the socket: %v, %v", files, err)
	}
}
