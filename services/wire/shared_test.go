package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

// What processes on one database must have alike none of them makes for itself.
func TestOnPostgreSQLNoProcessMakesUpWhatAllMustHave(t *testing.T) {
	w := newWorld(t, hello())
	common := settings.Common{DatabaseURL: "postgres://127.0.0.1:1/forge", AdminToken: adminToken}
	app := settings.App{GitHubAppID: appID, GitHubPrivateKeyFile: w.key}
	listening := settings.GRPC{GRPCAddress: "127.0.0.1:0"}
	process := func(c settings.Common) wire.Process { return wire.Process{Common: c, GRPC: listening} }
	scheduler := func(s settings.Scheduler) func(context.Context, settings.Common) error {
		s.Engine, s.ForkPolicy = "process", "approve"
		return func(ctx context.Context, c settings.Common) error {
			return wire.Apart(ctx, "scheduler", wire.SchedulerSettings{Process: process(c), Scheduler: s}, wire.Scheduler)
		}
	}
	together := func(s settings.Scheduler) func(context.Context, settings.Common) error {
		return func(ctx context.Context, c settings.Common) error {
			return wire.Together(ctx, wire.Settings{Common: c, GRPC: listening, App: app, Scheduler: s, Gateway: settings.Gateway{WebhookSecrets: []string{webhookSecret}}})
		}
	}
	noToken := func(c settings.Common) settings.Common { c.AdminToken = ""; return c }
	same := func(c settings.Common) settings.Common { return c }
	for name, c := range map[string]struct {
		run     func(context.Context, settings.Common) error
		without func(settings.Common) settings.Common
		want    string // variable
		file    string // where it was kept so far
	}{
		"a gateway without a token": {func(ctx context.Context, c settings.Common) error {
			return wire.Apart(ctx, "gateway", wire.GatewaySettings{Process: process(c)}, wire.Gateway)
		}, noToken, "FORGE_ADMIN_TOKEN", "admin-token"},
		"config without a token": {func(ctx context.Context, c settings.Common) error {
			return wire.Apart(ctx, "config", wire.ConfigSettings{Process: process(c), App: app}, wire.Config)
		}, noToken, "FORGE_ADMIN_TOKEN", "admin-token"},
		"a reporter without a token": {func(ctx context.Context, c settings.Common) error {
			return wire.Apart(ctx, "reporter", wire.ReporterSettings{Process: process(c)}, wire.Reporter)
		}, noToken, "FORGE_ADMIN_TOKEN", "admin-token"},
		"a scheduler without a token": {scheduler(settings.Scheduler{SecretsKey: secretsKey}), noToken, "FORGE_ADMIN_TOKEN", "admin-token"},
		"a scheduler without a key":   {scheduler(settings.Scheduler{}), same, "FORGE_SECRETS_KEY", "secrets-key"},
		"all without a token":         {together(settings.Scheduler{SecretsKey: secretsKey}), noToken, "FORGE_ADMIN_TOKEN", "admin-token"},
	} {
		for _, kept := range []bool{false, true} {
			c := c
			data := c.without(common)
			data.DataDir = t.TempDir()
			file := filepath.Join(data.DataDir, c.file)
			want := c.want + " is missing: all processes on one PostgreSQL must have the same; make it by forge secret new"
			if kept {
				want = fmt.Sprintf("%s is missing: all processes on one PostgreSQL must have the same; %s has what was used here before: set %s_FILE=%s", c.want, file, c.want, file)
				if err := os.WriteFile(file, []byte(secretsKey), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.run(t.Context(), data); err == nil || err.Error() != want {
				t.Errorf("%s:\n got %v\nwant %s", name, err, want)
			}
			if made, err := os.ReadDir(data.DataDir); err != nil || !kept && len(made) > 0 {
				t.Errorf("%s: made %v, %v", name, made, err)
			}
		}
	}
}

// Builds trust the one certificate, whichever scheduler they reach, and one that a
// scheduler alone has shown to them before.
func TestSchedulersOfOneDatabaseShowTheSameCertificate(t *testing.T) {
	kittest.Require(t, "postgres")
	w := newWorld(t, hello())
	w.env = append(w.env, "FORGE_DATABASE_URL="+kittest.PostgresURL(t), "FORGE_SECRETS_KEY="+secretsKey, "FORGE_ENGINE=process")
	shown := func(host string, dirs ...string) [][]byte {
		var processes []*process
		var addresses []string
		for _, dir := range dirs {
			address := kittest.FreeAddress(t)
			addresses = append(addresses, address)
			processes = append(processes, w.prepare("scheduler", "--data-dir="+dir, "--grpc-address="+kittest.FreeAddress(t),
				"--runner-address="+address, "--runner-url="+host+":9094"))
		}
		w.begin(t, processes...)
		var all [][]byte
		for _, address := range addresses {
			kittest.Eventually(t, patience, func() error {
				conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					return err
				}
				defer conn.Close()
				leaf := conn.ConnectionState().PeerCertificates[0]
				all = append(all, leaf.Raw)
				return leaf.VerifyHostname(host)
			})
		}
		return all
	}
	first, second := t.TempDir(), t.TempDir()
	both := shown("forge.test", first, second)
	if !bytes.Equal(both[0], both[1]) {
		t.Error("two schedulers that began at once show two certificates")
	}
	for _, dir := range []string{first, second} {
		if _, err := os.Stat(filepath.Join(dir, "runner-tls")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is kept in the data directory, too: %v", err)
		}
	}

	third := t.TempDir()
	before, _, err := settings.InDataDir(third).Keep("old.test", func() (cert, key []byte, err error) {
		return rpc.SelfSigned("the one of before", []string{"old.test"}, time.Now(), time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(before)
	for _, dir := range []string{third, first} {
		if got := shown("old.test", dir); !bytes.Equal(got[0], block.Bytes) {
			t.Error("builds that are under way do not trust the certificate that is shown now")
		}
	}
}
