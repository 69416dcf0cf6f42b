package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// Words of Docker's agents and of the swarm's managers.
const (
	startFailed    = "starting container failed"
	noSuchImage    = "No such image"
	notMetAnymore  = "assigned node no longer meets constraints"
	noSuitableNode = "no suitable node"
)

// ended reports whether nothing of a task runs any more, as far as its machine has
// said.
func ended(task swarm.Task) bool {
	switch task.Status.State {
	case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	default:
		return false
	}
}

// ran reports whether the first process of an ended task has run.
func ran(task swarm.Task) bool {
	switch task.Status.State {
	case swarm.TaskStateComplete:
		return true
	case swarm.TaskStateFailed, swarm.TaskStateShutdown:
		return !strings.Contains(task.Status.Err, startFailed) && task.Status.ContainerStatus != nil && task.Status.ContainerStatus.ContainerID != ""
	default:
		return false
	}
}

// sidecarOf is the name of the sidecar that a task is of; "" for the build's own.
func sidecarOf(task swarm.Task) string {
	if task.Spec.ContainerSpec == nil {
		return ""
	}
	return task.Spec.ContainerSpec.Labels[dockerapi.SidecarLabel]
}

func attemptOf(task swarm.Task) string {
	if task.Spec.ContainerSpec == nil {
		return ""
	}
	return task.Spec.ContainerSpec.Labels[dockerapi.AttemptLabel]
}

// pick is the task that counts where a service has several: one that may run on a
// machine that is heard of, else one that may run, else the newest.
func pick(tasks []swarm.Task, nodes map[string]swarm.Node) (swarm.Task, bool) {
	if len(tasks) == 0 {
		return swarm.Task{}, false
	}
	rank := func(task swarm.Task) int {
		switch {
		case ended(task):
			return 0
		case task.NodeID == "" || heardOf(nodes[task.NodeID]):
			return 2
		}
		return 1
	}
	return slices.MaxFunc(tasks, func(a, b swarm.Task) int {
		if a, b := rank(a), rank(b); a != b {
			return a - b
		}
		return a.CreatedAt.Compare(b.CreatedAt)
	}), true
}

// tasks finds those of this instance's services. The managers keep a service's
// labels with each task, so that those of a removed service are found, too.
func (m *managers) tasks(ctx context.Context, label, value string) ([]swarm.Task, error) {
	found, err := m.client.TaskList(ctx, client.TaskListOptions{Filters: dockerapi.Labelled(m.config.Instance, label, value)})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return found.Items, nil
}

// services finds this instance's.
func (m *managers) services(ctx context.Context, label, value string) ([]swarm.Service, error) {
	found, err := m.client.ServiceList(ctx, client.ServiceListOptions{Filters: dockerapi.Labelled(m.config.Instance, label, value)})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return found.Items, nil
}

// oneLine is a text as people read it in a message.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-3], "") + "..."
	}
	return text
}
