package docker_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

const soon = time.Minute // what must happen happens at once; machines are slow

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an engine of the real thing, with a runner's socket, and a client of its
// own to see what the engine has made.
type rig struct {
	*docker.Engine
	api    *client.Client
	config docker.Config
	socket net.Listener
	images []string // to be removed in the end

	mu   sync.Mutex
	said []string // for the log of builds
}

// newRig fills in what the config leaves open. When the test ends, nothing must
// be left that Stop cannot find.
func newRig(t testing.TB, config docker.Config) *rig {
	t.Helper()
	kittest.Require(t, "docker")
	api := kittest.Docker(t, "")
	if config.Instance == "" {
		config.Instance = unique()
	}
	if config.Forgexec == nil {
		config.Forgexec = []string{forgexec(t)}
	}
	if config.ConfigFile == "" {
		config.ConfigFile = filepath.Join(t.TempDir(), "config.json") // not this user's
	}
	if config.RetryAfter == 0 {
		config.RetryAfter = time.Millisecond
	}
	config.Log = kittest.Log(t)
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "runner.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	if err := os.Chmod(socket.Addr().String(), 0o666); err != nil {
		t.Fatal(err)
	}
	engine, err := docker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Engine: engine, api: api, config: config, socket: socket}
	t.Cleanup(func() { r.stopAll(t) })
	return r
}

// stopAll runs when t.Context() has ended.
func (r *rig) stopAll(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	containers, err := r.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers {
		if err := r.Stop(ctx, c.Attempt); err != nil {
			t.Error(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if left := r.left(ctx, t); left != "" {
		t.Errorf("left behind: %s", left)
	}
	for _, name := range r.images {
		kittest.RemoveImage(ctx, t, r.api, name)
	}
}

func (r *rig) left(ctx context.Context, t testing.TB) string {
	t.Helper()
	return left(ctx, t, r.api, r.config.Instance)
}

// left names the containers and networks of an instance. Anonymous volumes go with
// their containers, which TestEndedContainerIsListedUntilItIsStopped looks at.
func left(ctx context.Context, t testing.TB, api *client.Client, instance string) string {
	t.Helper()
	mine := client.Filters{}.Add("label", "forge.instance="+instance)
	containers, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	networks, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range containers.Items {
		names = append(names, fmt.Sprintf("container %s (%s)", c.Names, c.State))
	}
	for _, n := range networks.Items {
		names = append(names, "network "+n.Name)
	}
	return strings.Join(names, ", ")
}

func (r *rig) spec(image string) engine.Spec {
	return engine.Spec{
		Attempt: unique(), BuildID: "b1", Repository: "octo/cat", Action: "execute", Image: image,
		Runner: engine.Runner{URL: "unix://" + r.socket.Addr().String(), Token: "secret"},
		Say: func(line string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.said = append(r.said, line)
		},
	}
}

// log is what was said for the log of builds so far.
func (r *rig) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, "\n")
}

// start returns the container's name.
func (r *rig) start(t testing.TB, spec engine.Spec) string {
	t.Helper()
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return "forge-" + spec.Attempt
}

func (r *rig) inspect(t testing.TB, name string) container.InspectResponse {
	t.Helper()
	found, err := r.api.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return found.Container
}

// run runs a shell's script in the container and returns what it prints and its
// exit code.
func (r *rig) run(t testing.TB, name, script string) (output string, code int) {
	t.Helper()
	made, err := r.api.ExecCreate(t.Context(), name, client.ExecCreateOptions{
		Cmd: []string{"sh", "-c", script}, TTY: true, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := r.api.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	text, err := io.ReadAll(stream.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := r.api.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n"), ended.ExitCode
}

// listed waits until the one container that List names is as it should be.
func (r *rig) listed(t testing.TB, as func(engine.Container) bool) engine.Container {
	t.Helper()
	var found engine.Container
	kittest.Eventually(t, soon, func() error {
		containers, err := r.List(t.Context())
		if err != nil {
			return err
		}
		if len(containers) != 1 || !as(containers[0]) {
			return fmt.Errorf("list: %+v", containers)
		}
		found = containers[0]
		return nil
	})
	return found
}

// image makes one of busybox, with changes as in a Dockerfile.
func (r *rig) image(t testing.TB, changes ...string) string {
	t.Helper()
	name := kittest.Image(t, r.api, changes...)
	r.images = append(r.images, name)
	return name
}

// forgexec builds the real one, static, as releases are.
func forgexec(t testing.TB) string {
	t.Helper()
	built, err := builtForgexec()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "forgexec")
	if err := os.WriteFile(path, built, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

var builtForgexec = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "forgexec")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "forgexec")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/forge-ci/forge/services/cmd/forgexec")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build forgexec: %w\n%s", err, output)
	}
	return os.ReadFile(path)
})

func unique() string { return "t" + strings.ToLower(rand.Text()) }
