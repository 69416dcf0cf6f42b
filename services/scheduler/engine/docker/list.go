package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// List asks the Docker engine. An attempt that has come no further than its
// network or its sidecars is listed too, so that these are found when nobody goes
// on with it.
func (e *Engine) List(ctx context.Context) ([]engine.Container, error) {
	found, err := e.containers(ctx, dockerapi.InstanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	networks, err := e.networks(ctx, dockerapi.InstanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	listed := map[string]engine.Container{}
	found = slices.DeleteFunc(found, func(c container.Summary) bool { return attemptOf(c) == "" }) // it waits
	networks = slices.DeleteFunc(networks, func(n network.Summary) bool { return n.Labels[dockerapi.AttemptLabel] == "" })
	for _, c := range found {
		listed[attemptOf(c)] = engine.Container{Attempt: attemptOf(c), ExitCode: -1}
	}
	for _, n := range networks {
		listed[n.Labels[dockerapi.AttemptLabel]] = engine.Container{Attempt: n.Labels[dockerapi.AttemptLabel], ExitCode: -1}
	}
	for _, c := range found {
		if c.Labels[dockerapi.SidecarLabel] != "" {
			continue
		}
		inspected, err := e.client.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", c.ID, err)
		}
		one, err := seen(attemptOf(c), inspected.Container.State)
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", c.ID, err)
		}
		listed[one.Attempt] = one
	}
	return slices.Collect(maps.Values(listed)), nil
}

// seen is a container in the scheduler's words.
func seen(attempt string, state *container.State) (engine.Container, error) {
	c := engine.Container{Attempt: attempt, Running: state.Running, ExitCode: -1}
	if state.OOMKilled {
		c.Ending = engine.OutOfMemory
	}
	started, err := time.Parse(time.RFC3339Nano, state.StartedAt)
	if err != nil {
		return c, fmt.Errorf("time of its start: %w", err)
	}
	c.Start = started // Docker's zero time is Go's
	if !c.Running && !started.IsZero() {
		c.ExitCode = state.ExitCode
	}
	return c, nil
}

// attemptOf is whose a container is; "" for one that waits still. What had waited has
// it in its name, for labels do not change.
func attemptOf(c container.Summary) string {
	if c.Labels[dockerapi.WaitingLabel] == "" {
		return c.Labels[dockerapi.AttemptLabel]
	}
	for _, name := range c.Names {
		if attempt, ok := strings.CutPrefix(name, "/"+dockerapi.Name("")); ok {
			return attempt
		}
	}
	return ""
}
