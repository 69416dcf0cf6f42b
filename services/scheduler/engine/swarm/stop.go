package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// Stop has the tasks of an attempt ended, waits until their machines say so, and
// removes what it had. While a machine is not heard of, the services stay and Stop
// is an error: a swarm forgets the tasks of services that are gone, and nobody would
// know any more that something may run.
func (e *Engine) Stop(ctx context.Context, attempt string) error {
	if err := dockerapi.CheckName(attempt); err != nil {
		return err
	}
	services, err := e.endTasks(ctx, attempt)
	if err != nil {
		return err
	}
	for _, s := range services {
		if _, err := e.client.ServiceRemove(ctx, s.ID, client.ServiceRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove service %s: %w", s.Spec.Name, err)
		}
	}
	return e.forgetNetworks(ctx, attempt)
}

// endTasks returns when no task of the attempt runs any more, with its services, which
// are there still.
func (m *managers) endTasks(ctx context.Context, attempt string) ([]swarm.Service, error) {
	for {
		services, err := m.services(ctx, dockerapi.AttemptLabel, attempt)
		if err != nil {
			return nil, err
		}
		var all errgroup.Group
		for _, s := range services {
			all.Go(func() error { return m.scaleDown(ctx, s) })
		}
		if err := all.Wait(); err != nil {
			return nil, err
		}
		if late, err := m.awaitEnd(ctx, attempt, services); err != nil || !late {
			return services, err
		}
	}
}

// forgetNetworks removes the networks of an attempt until none is listed any more: a
// machine that was just given a task may make its part of one that was removed.
func (m *managers) forgetNetworks(ctx context.Context, attempt string) error {
	deadline := time.Now().Add(forgetWithin)
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		if err := m.removeNetworks(ctx, attempt); err != nil {
			return err
		}
		networks, err := m.networks(ctx, dockerapi.AttemptLabel, attempt)
		if err != nil || len(networks) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("network %s was removed, and is still listed", networks[0].Name)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// scaleDown has a service want no task any more. A job whose service is removed
// would run on where Docker is older than 23 (moby#42789).
func (m *managers) scaleDown(ctx context.Context, s swarm.Service) error {
	for !stopping(&s) {
		none := uint64(0)
		spec := s.Spec
		if spec.Mode.ReplicatedJob != nil {
			spec.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: &none, TotalCompletions: &none}
		} else {
			spec.Mode = swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &none}}
		}
		_, err := m.client.ServiceUpdate(ctx, s.ID, client.ServiceUpdateOptions{Version: s.Version, Spec: spec, RegistryAuthFrom: swarm.RegistryAuthFromSpec})
		switch {
		case err == nil:
			return nil
		case networkGone(err) && len(s.Spec.TaskTemplate.Networks) > 0:
			s.Spec.TaskTemplate.Networks = nil
			continue
		case errdefs.IsNotFound(err):
			return nil
		case !outOfSequence(err):
			return fmt.Errorf("scale service %s down: %w", s.Spec.Name, err)
		}
		again, err := m.client.ServiceInspect(ctx, s.ID, client.ServiceInspectOptions{})
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("inspect service %s: %w", s.Spec.Name, err)
		}
		s = again.Service
	}
	return nil
}

// networkGone is that a service cannot be changed since its network is not there: it was
// made in the moment in which that was removed, by a Start that was broken off.
func networkGone(err error) bool {
	return dockerapi.Says(err, "network ") && dockerapi.Says(err, " not found")
}

// awaitEnd returns when no task of the attempt runs any more, nor ever will. Tasks
// that are not marked yet may still be started. late: there is another service, which a
// Start that was broken off had asked for.
func (m *managers) awaitEnd(ctx context.Context, attempt string, services []swarm.Service) (late bool, err error) {
	known := func(id string) bool {
		return slices.ContainsFunc(services, func(s swarm.Service) bool { return s.ID == id })
	}
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		tasks, err := m.tasks(ctx, dockerapi.AttemptLabel, attempt)
		if err != nil {
			return false, err
		}
		if tasks = slices.DeleteFunc(tasks, ended); len(tasks) == 0 {
			return false, nil
		}
		if slices.ContainsFunc(tasks, func(t swarm.Task) bool { return !known(t.ServiceID) }) {
			now, err := m.services(ctx, dockerapi.AttemptLabel, attempt)
			if err != nil || slices.ContainsFunc(now, func(s swarm.Service) bool { return !known(s.ID) }) {
				return err == nil, err
			}
		}
		nodes, err := m.nodes(ctx)
		if err != nil {
			return false, err
		}
		var running, lost []string // their machines
		for _, t := range tasks {
			switch node, known := nodes[t.NodeID]; {
			case t.NodeID == "" || known && heardOf(node):
				running = append(running, m.machine(t.NodeID))
			case known:
				lost = append(lost, m.machine(t.NodeID))
			} // else the machine has left the swarm, by a person's word
		}
		if len(running) == 0 && len(lost) > 0 {
			slices.Sort(lost)
			return false, fmt.Errorf("machine %s is not heard of; what ran there may still run", strings.Join(slices.Compact(lost), ", "))
		}
		if len(running) == 0 {
			return false, nil
		}
		if err := wait(ctx, pause); err != nil {
			return false, fmt.Errorf("the container of attempt %s has not ended yet, on machine %s: %w", attempt, running[0], err)
		}
	}
}

// The pauses between two looks at what changes by itself.
const (
	firstPause = 50 * time.Millisecond
	mostPause  = 500 * time.Millisecond
)

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
