package wire_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

// A room closes all that it has opened, be it that the last step of its assembly
// fails or that it is assembled and closed.
func TestRoomsCloseWhatTheyOpened(t *testing.T) {
	w := newWorld(t, hello())
	placeForgexec(t)
	conn, err := rpc.NewPipe().Dial("gateway", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	peers := wire.Peers{"config": conn, "scheduler": conn, "reporter": conn, "gateway": conn}
	tel := &telemetry.Telemetry{Log: kittest.Log(t), Meter: noop.NewMeterProvider()}
	config := func(app settings.App) func(wire.Process) (*wire.Room, error) {
		return func(p wire.Process) (*wire.Room, error) {
			return wire.Config(t.Context(), wire.ConfigSettings{Process: p, App: app}, tel, peers)
		}
	}
	reporter := func(report string) func(wire.Process) (*wire.Room, error) {
		return func(p wire.Process) (*wire.Room, error) {
			return wire.Reporter(t.Context(), wire.ReporterSettings{Process: p, Reporter: settings.Reporter{Report: report}}, tel, peers)
		}
	}
	scheduler := func(engine, forks string) func(wire.Process) (*wire.Room, error) {
		return func(p wire.Process) (*wire.Room, error) {
			return wire.Scheduler(t.Context(), wire.SchedulerSettings{Process: p, Scheduler: settings.Scheduler{
				Engine: engine, ForkPolicy: forks, RunnerAddress: "127.0.0.1:0",
			}}, tel, peers)
		}
	}
	gateway := func(allowed, cert string) func(wire.Process) (*wire.Room, error) {
		return func(p wire.Process) (*wire.Room, error) {
			return wire.Gateway(t.Context(), wire.GatewaySettings{Process: p, Gateway: settings.Gateway{
				Address: "127.0.0.1", WebhookSecrets: []string{webhookSecret}, AllowedIPs: []string{allowed}, HTTPSCert: cert, HTTPSKey: cert,
			}}, tel, peers)
		}
	}
	for name, c := range map[string]struct {
		assemble func(wire.Process) (*wire.Room, error)
		want     string // of the error; "": there is none
	}{
		"config":                             {config(settings.App{GitHubAppID: appID, GitHubPrivateKeyFile: w.key}), ""},
		"config with no key":                 {config(settings.App{GitHubAppID: appID, GitHubPrivateKey: "no key"}), "PEM"},
		"reporter":                           {reporter("statuses"), ""},
		"reporter that tells strangely":      {reporter("carrier pigeons"), "carrier pigeons"},
		"scheduler":                          {scheduler("process", "approve"), ""},
		"scheduler with a strange policy":    {scheduler("process", "perhaps"), "perhaps"},
		"scheduler with a strange engine":    {scheduler("abacus", "approve"), "abacus"},
		"gateway":                            {gateway("any", ""), ""},
		"gateway that is open to nowhere":    {gateway("home", ""), "home"},
		"gateway with a certificate missing": {gateway("any", "/no/such.pem"), "/no/such.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			running, held := goleak.IgnoreCurrent(), filesHeld(t)
			room, err := c.assemble(wire.Process{Common: settings.Common{DataDir: t.TempDir()}})
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one with %q", err, c.want)
				}
			case err != nil:
				t.Fatal(err)
			default:
				if err := room.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
			for _, file := range filesHeld(t) {
				if !slices.Contains(held, file) {
					t.Errorf("%s is still open", file)
				}
			}
			goleak.VerifyNone(t, running)
		})
	}
}

// placeForgexec puts a program of this name where an engine looks for it.
func placeForgexec(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(self), "forgexec")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
}

// filesHeld is what files and sockets this process has open.
func filesHeld(t *testing.T) (held []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		t.Fatalf("files of this process: %d, %v", len(fds), err)
	}
	for _, fd := range fds {
		if file, err := os.Readlink(fd); err == nil {
			held = append(held, file)
		}
	}
	return held
}
