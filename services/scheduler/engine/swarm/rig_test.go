package swarm_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forgexecImage brings an image with this forgexec to the machines.
func forgexecImage(t testing.TB, s *kittest.Swarm, forgexec string) string {
	t.Helper()
	return s.ImageWith(t, "usr/local/bin/forgexec", forgexec)
}

// left names the services, tasks and networks of an instance.
func left(ctx context.Context, t testing.TB, api *client.Client, instance string) string {
	t.Helper()
	mine := client.Filters{}.Add("label", dockerapi.InstanceLabel+"="+instance)
	services, err := api.ServiceList(ctx, client.ServiceListOptions{Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := api.TaskList(ctx, client.TaskListOptions{Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	networks, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	containers, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range services.Items {
		names = append(names, "service "+s.Spec.Name)
	}
	for _, task := range tasks.Items {
		switch task.Status.State {
		case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateShutdown: // Docker before 23 keeps some of them
		default:
			names = append(names, fmt.Sprintf("task %s (%s)", task.ID, task.Status.State))
		}
	}
	for _, n := range networks.Items {
		names = append(names, "network "+n.Name)
	}
	for _, c := range containers.Items {
		if c.State != container.StateRunning { // as their tasks
			continue
		}
		names = append(names, fmt.Sprintf("container %s (%s)", c.Names, c.State))
	}
	return strings.Join(names, ", ")
}

// rig is an engine on a swarm of one machine, with a runner's address where nobody
// answers: what forgexec is asked to do does not matter here.
type rig struct {
	*swarmengine.Engine
	swarm  *kittest.Swarm
	api    *client.Client
	config swarmengine.Config

	mu   sync.Mutex
	said []string // for the log of builds
}

// newRig fills in what the config leaves open. When the test ends, nothing must be
// left that Stop cannot find.
func newRig(t testing.TB, s *kittest.Swarm, config swarmengine.Config) *rig {
	t.Helper()
	if config.Instance == "" {
		config.Instance = unique()
	}
	if config.Host == "" {
		config.Host = s.Nodes[0].URL
	}
	if config.ConfigFile == "" {
		config.ConfigFile = filepath.Join(t.TempDir(), "config.json") // not this user's
	}
	config.RetryAfter, config.Log = 100*time.Millisecond, kittest.Log(t)
	made, err := swarmengine.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Engine: made, swarm: s, api: s.Nodes[0].API, config: config}
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
	if left := left(ctx, t, r.api, r.config.Instance); left != "" {
		t.Errorf("left behind: %s", left)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// swept does as the scheduler does with each heartbeat: what is listed of another
// attempt than the one that is wanted is stopped again. A machine of Docker 20.10 may
// make its part of a network once more that was removed in the middle of a Start.
func (r *rig) swept(t *testing.T, wanted string) (listed []engine.Container, err error) {
	t.Helper()
	kittest.Eventually(t, time.Minute, func() error {
		if listed, err = r.List(t.Context()); err != nil {
			return err
		}
		var stray error
		for _, c := range listed {
			if c.Attempt != wanted {
				stray = errors.Join(fmt.Errorf("%s is listed", c.Attempt), r.Stop(t.Context(), c.Attempt))
			}
		}
		return stray
	})
	return listed, err
}

func (r *rig) spec(image string) engine.Spec {
	return engine.Spec{
		Attempt: unique(), BuildID: "b1", Repository: "octo/cat", Action: "execute", Image: image,
		Runner: engine.Runner{URL: r.swarm.Address + ":1", Token: "secret"}, CPUs: 0.1, Memory: 64 << 20,
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

// container is the one of an attempt, or of its sidecar of this name.
func (r *rig) container(t testing.TB, attempt, sidecar string) container.InspectResponse {
	t.Helper()
	found, err := r.api.ContainerList(t.Context(), client.ContainerListOptions{
		Filters: client.Filters{}.Add("label", dockerapi.AttemptLabel+"="+attempt),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found.Items {
		if c.Labels[dockerapi.SidecarLabel] != sidecar {
			continue
		}
		inspected, err := r.api.ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return inspected.Container
	}
	t.Fatalf("attempt %s has no container %q", attempt, sidecar)
	return container.InspectResponse{}
}

// builtForgexec is the real one, static, as releases are.
func builtForgexec(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "forgexec")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/forge-ci/forge/services/cmd/forgexec")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build forgexec: %v\n%s", err, output)
	}
	return path
}

func unique() string { return "t" + strings.ToLower(rand.Text()) }
