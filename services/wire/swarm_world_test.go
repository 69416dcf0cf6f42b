package wire_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// swarmPatience is how long anything with a swarm of several nodes may take.
const swarmPatience = 5 * time.Minute

// swarmWorld is a world whose Forge runs builds on a swarm. Their commands ask a
// foreman.
type swarmWorld struct {
	*world
	swarm   *kittest.Swarm
	foreman *kittest.Foreman
}

// newSwarmWorld has a Forge that speaks to this manager, with further settings.
func newSwarmWorld(t testing.TB, s *kittest.Swarm, manager *kittest.SwarmNode, settings ...string) *swarmWorld {
	t.Helper()
	image := s.Image(t)
	f := kittest.NewForeman(t, s.Address)
	run := "sh run.sh"
	w := &swarmWorld{swarm: s, foreman: f, world: newWorld(t, map[string]string{
		"run.sh":     f.Script(),
		".forge.yml": lines("image: "+image, "execute: ["+run+"]", "deploy: {staging: ["+run+"]}"),
	})}
	w.patience = swarmPatience
	w.env = append(w.env, "DOCKER_HOST="+manager.URL, "FORGE_FORGEXEC_IMAGE="+forgexecImage(t, s),
		fmt.Sprintf("FORGE_RUNNER_ADDRESS=%s:%d", s.Address, kittest.FreePort(t)),
		"FORGE_CAPACITY=100", "FORGE_CPUS=0.1", "FORGE_MEMORY=64MiB")
	w.env = append(w.env, settings...)
	w.lay(t, deployment{})
	forge := w.process("forge")
	forge.args = append(forge.args, "--engine=swarm")
	w.begin(t, forge)
	w.awaitUp(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
	w.installed(t)
	return w
}

// installed waits until each machine has the forgexec of each Forge there is.
func (w *swarmWorld) installed(t testing.TB) {
	t.Helper()
	kittest.Eventually(t, swarmPatience, func() error {
		api := w.swarm.Leader(t).API
		installers, err := api.ServiceList(t.Context(), client.ServiceListOptions{Status: true, Filters: client.Filters{}.Add("label", "forge.installer")})
		if err != nil {
			return err
		}
		for _, installer := range installers.Items {
			if status := installer.ServiceStatus; status.RunningTasks < uint64(len(w.swarm.Nodes)) {
				return fmt.Errorf("%s runs on %d machines", installer.Spec.Name, status.RunningTasks)
			}
		}
		if len(installers.Items) == 0 {
			return errors.New("there is no installer")
		}
		return nil
	})
}

// forgexecImage has forgexec and nothing else, as FORGE_FORGEXEC_IMAGE may.
func forgexecImage(t testing.TB, s *kittest.Swarm) string {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	return s.ImageWith(t, "bin/forgexec", filepath.Join(binDir, "forgexec"))
}

// proposeSeveral opens so many pull requests, and returns their heads.
func (w *swarmWorld) proposeSeveral(t *testing.T, name string, n int) (heads []string) {
	t.Helper()
	for i := range n {
		_, head := w.propose(t, fmt.Sprintf("%s-%d", name, i+1), files("file", fmt.Sprintf("%s %d", name, i+1)))
		heads = append(heads, head)
	}
	return heads
}

// builds are those of these heads.
func (w *swarmWorld) builds(t testing.TB, heads ...string) (found []*schedulerv1.Build) {
	t.Helper()
	conn := w.dial(t, "scheduler")
	defer func() { _ = conn.Close() }()
	for page := ""; ; {
		list, err := schedulerv1.NewBuildServiceClient(conn).ListBuilds(asAdmin(t.Context()), &schedulerv1.ListBuildsRequest{PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, build := range list.GetBuilds() {
			if slices.Contains(heads, build.GetSha()) {
				found = append(found, build)
			}
		}
		if page = list.GetNextPageToken(); page == "" {
			return found
		}
	}
}

// begun waits until a command of each of these builds has begun, and returns the
// builds.
func (w *swarmWorld) begun(t *testing.T, heads ...string) (builds []*schedulerv1.Build) {
	t.Helper()
	kittest.Eventually(t, swarmPatience, func() error {
		builds = w.builds(t, heads...)
		for _, build := range builds {
			if w.foreman.Runs(build.GetId()) == 0 {
				return fmt.Errorf("build %s (%s %s) has not begun", build.GetId(), build.GetState(), build.GetMessage())
			}
		}
		if len(builds) < len(heads) {
			return fmt.Errorf("%d builds, want %d", len(builds), len(heads))
		}
		return nil
	})
	return builds
}

// nodes are where an attempt of each build runs, which the managers hear of late.
func (w *swarmWorld) nodes(t *testing.T, builds []*schedulerv1.Build) map[*kittest.SwarmNode][]*schedulerv1.Build {
	t.Helper()
	on := map[*kittest.SwarmNode][]*schedulerv1.Build{}
	ended := []swarm.TaskState{swarm.TaskStateComplete, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateShutdown, swarm.TaskStateOrphaned, swarm.TaskStateRemove}
	for _, build := range builds {
		listed, err := w.swarm.Leader(t).API.TaskList(t.Context(),
			client.TaskListOptions{Filters: client.Filters{}.Add("label", "forge.build="+build.GetId())})
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range listed.Items {
			for _, node := range w.swarm.Nodes {
				if task.NodeID == node.ID && !slices.Contains(ended, task.Status.State) {
					on[node] = append(on[node], build)
				}
			}
		}
	}
	return on
}

// ranOnce wants these builds to pass, each by one attempt whose commands ran once.
func (w *swarmWorld) ranOnce(t *testing.T, heads ...string) {
	t.Helper()
	for _, head := range heads {
		w.shows(t, head, "forge/test", "success")
	}
	for _, build := range w.builds(t, heads...) {
		if runs := w.foreman.Runs(build.GetId()); build.GetAttempt() != 1 || runs != 1 {
			t.Errorf("build %s passed by attempt %d, its commands ran %d times", build.GetId(), build.GetAttempt(), runs)
		}
	}
}

// nothingIsLeft waits until the swarm has no service and no network of builds,
// and no node a container of one.
func (w *swarmWorld) nothingIsLeft(t testing.TB, within time.Duration) {
	t.Helper()
	mine := client.Filters{}.Add("label", "forge.attempt")
	kittest.Eventually(t, within, func() error {
		leader := w.swarm.Leader(t).API
		services, err := leader.ServiceList(t.Context(), client.ServiceListOptions{Filters: mine})
		if err != nil {
			return err
		}
		networks, err := leader.NetworkList(t.Context(), client.NetworkListOptions{Filters: mine})
		if err != nil {
			return err
		}
		left := len(services.Items) + len(networks.Items)
		for _, node := range w.swarm.Nodes {
			if !node.Runs() {
				continue
			}
			containers, err := node.API.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: mine})
			if err != nil {
				return err
			}
			left += len(containers.Items)
		}
		if left > 0 {
			return fmt.Errorf("builds have left %d services, %d networks, and %d things in all", len(services.Items), len(networks.Items), left)
		}
		return nil
	})
}
