package swarm_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forgexecImage brings an image with this forgexec to the machines.
func forgexecImage(t testing.TB, s *kittest.Swarm, forgexec string) string {
	t.Helper()
	program, err := os.ReadFile(forgexec)
	if err != nil {
		t.Fatal(err)
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := w.WriteHeader(&tar.Header{Name: "usr/local/bin/forgexec", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return s.ImageOf(t, root.Bytes())
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
