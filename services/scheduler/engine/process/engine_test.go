package process_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
	"github.com/forge-ci/forge/services/scheduler/engine/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	t.Setenv("FORGE_ADMIN_TOKEN", "not for builds")
	enginetest.Run(t, enginetest.Config{
		Image: "golang:1.26", Bare: true,
		New: func(t *testing.T, forgexec, dir string) engine.Engine {
			return newEngine(t, dir, forgexec)
		},
	})
}

func newEngine(t *testing.T, dir string, forgexec ...string) *process.Engine {
	t.Helper()
	engine, err := process.New(process.Config{Dir: dir, Forgexec: forgexec, Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// script is a forgexec that is a shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "forgexec")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func spec() engine.Spec {
	return engine.Spec{
		Attempt: "a1", Image: "golang:1.26",
		Runner: engine.Runner{URL: "unix:///nowhere/runner.sock", Token: "token-of-one-attempt"},
	}
}

func ended(t *testing.T, engine *process.Engine, exitCode int) {
	t.Helper()
	kittest.Eventually(t, time.Minute, func() error {
		list, err := engine.List(t.Context())
		if err != nil {
			return err
		}
		if len(list) != 1 || list[0].Running || list[0].ExitCode != exitCode {
			return errors.New("not ended, or otherwise")
		}
		return nil
	})
}

func TestBuildsHaveTheVariablesThatTheServerSets(t *testing.T) {
	out := filepath.Join(t.TempDir(), "environment")
	forgexec := []string{"/bin/sh", script(t, "echo \"pid $$\" >$FORGE_RUNNER_STATE; env >"+out+"; echo exit 0 >>$FORGE_RUNNER_STATE")}
	engine, err := process.New(process.Config{Dir: t.TempDir(), Forgexec: forgexec, Environment: map[string]string{"MIRROR": "a b", "HOME": "/nonexistent"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Start(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	ended(t, engine, 0)
	text, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(text), "MIRROR=a b\n") || strings.Contains(string(text), "/nonexistent") {
		t.Errorf("%v: %s", err, text)
	}
}

func TestForgexecGetsNoneOfForgesEnvironment(t *testing.T) {
	t.Setenv("FORGE_ADMIN_TOKEN", "not for builds")
	t.Setenv("SECRET_OF_THE_HOST", "neither")
	out := filepath.Join(t.TempDir(), "environment")
	dir := t.TempDir()
	engine := newEngine(t, dir, "/bin/sh", script(t, "echo \"pid $$\" >$FORGE_RUNNER_STATE; env >"+out+"; echo exit 0 >>$FORGE_RUNNER_STATE"))
	if err := engine.Start(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	ended(t, engine, 0)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "LANG", "HOME", "TMPDIR", "FORGE_WORKSPACE", "FORGE_RUNNER_URL", "FORGE_RUNNER_TOKEN",
			"FORGE_RUNNER_WAITS", "FORGE_RUNNER_STATE", "FORGE_RUNNER_NOTICE", "PWD", "SHLVL", "_":
		default:
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		t.Errorf("too much in the environment: %v", names)
	}
	if want := "FORGE_RUNNER_NOTICE=process engine: image golang:1.26 is ignored; commands run on this host\n"; !strings.Contains(string(text), want) {
		t.Errorf("no notice in %s", text)
	}
	if err := engine.Stop(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAForgexecThatIsNotThereMayComeLater(t *testing.T) {
	dir := t.TempDir()
	later := filepath.Join(dir, "forgexec")
	engine := newEngine(t, filepath.Join(dir, "attempts"), later)
	if err := engine.Start(t.Context(), spec()); err == nil || !strings.Contains(err.Error(), later) {
		t.Fatalf("start without forgexec: %v", err)
	}
	if list, err := engine.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("started: %v, %v", list, err)
	}
	if err := os.Symlink("/bin/true", later); err != nil {
		t.Fatal(err)
	}
	if err := engine.Start(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	ended(t, engine, -1) // /bin/true writes no state
}

func TestStartGoesOnWhereACrashLeftIt(t *testing.T) {
	dir := t.TempDir()
	for _, done := range []string{"a1/home", "a1/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, done), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a1/lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t, dir, "/bin/sh", script(t, "printf 'pid %d\\nexit 0\\n' $$ >$FORGE_RUNNER_STATE"))
	ended(t, engine, -1)
	if err := engine.Start(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	ended(t, engine, 0)
}

func TestStopRemovesFoldersThatNobodyMayWriteTo(t *testing.T) {
	dir := t.TempDir()
	engine := newEngine(t, dir, "/bin/sh", script(t,
		"mkdir -p $HOME/go/pkg/mod; touch $HOME/go/pkg/mod/file; chmod -R a-w $HOME/go; printf 'pid %d\\nexit 0\\n' $$ >$FORGE_RUNNER_STATE"))
	if err := engine.Start(t.Context(), spec()); err != nil {
		t.Fatal(err)
	}
	ended(t, engine, 0)
	if err := engine.Stop(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAnEngineWithoutForgexecIsAnError(t *testing.T) {
	if _, err := process.New(process.Config{Dir: t.TempDir()}); err == nil {
		t.Error("it was made")
	}
}

func TestServicesAreRefusedAndPortsThatLeadNowhereAreSaid(t *testing.T) {
	e := newEngine(t, t.TempDir(), "/bin/true")
	refused := spec()
	refused.Sidecars = []engine.Sidecar{{Name: "db", Image: "postgres:16"}}
	if err := e.Start(t.Context(), refused); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "services (db) run in containers") {
		t.Errorf("got %v", err)
	}
	var said []string
	ports := spec()
	ports.Ports = []engine.Port{{Container: 8080, Host: 80}, {Container: 9000, Host: 9000}}
	ports.Say = func(line string) { said = append(said, line) }
	if err := e.Start(t.Context(), ports); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "port 80 of the host does not lead to port 8080") {
		t.Errorf("said %q", said)
	}
	if err := e.Stop(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
}

func TestAnotherHostsPlatformIsRefused(t *testing.T) {
	e := newEngine(t, t.TempDir(), "/bin/true")
	here := runtime.GOOS + "/" + runtime.GOARCH
	refused := spec()
	refused.Platform = "linux/mips"
	if err := e.Start(t.Context(), refused); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "it asks for platform linux/mips, and this server runs commands on its own host, which is "+here) {
		t.Errorf("got %v", err)
	}
	if list, err := e.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("started: %v, %v", list, err)
	}
	taken := spec()
	taken.Platform = here
	if err := e.Start(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	ended(t, e, -1)
	if err := e.Stop(t.Context(), "a1"); err != nil {
		t.Error(err)
	}
}
