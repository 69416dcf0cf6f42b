package swarm

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	overlay   = "overlay"
	mtuOption = "com.docker.network.driver.mtu"
	// releaseWithin is how long the managers may take to see that nobody uses a
	// network any more, forgetWithin how long to forget one that was removed.
	releaseWithin = 5 * time.Second
	forgetWithin  = 20 * time.Second
)

func (m *managers) networks(ctx context.Context, label, value string) ([]network.Summary, error) {
	filters := dockerapi.Labelled(m.config.Instance, label, value).Add("driver", overlay)
	found, err := m.client.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	return found.Items, nil
}

// network makes the attempt's network, unless it is there, and returns its id.
func (m *managers) network(ctx context.Context, spec engine.Spec) (id string, err error) {
	options := client.NetworkCreateOptions{
		Driver: overlay, Scope: "swarm", Labels: dockerapi.Labels(m.config.Instance, spec), Options: map[string]string{},
	}
	if m.config.MTU != 0 {
		options.Options[mtuOption] = strconv.Itoa(m.config.MTU)
	}
	name := dockerapi.Name(spec.Attempt)
	made, err := m.client.NetworkCreate(ctx, name, options)
	if err == nil {
		return made.ID, nil
	}
	if !nameTaken(err) {
		return "", fmt.Errorf("create the network of attempt %s: %w", spec.Attempt, err)
	}
	there, err := m.networks(ctx, dockerapi.AttemptLabel, spec.Attempt)
	if err != nil {
		return "", err
	}
	if len(there) == 0 {
		return "", fault.Newf(fault.Invalid, "a network %s is there, and it is not of this Forge", name)
	}
	return there[0].ID, nil
}

// removeNetworks removes those of an attempt. One that is in use still is tried
// again for a moment.
func (m *managers) removeNetworks(ctx context.Context, attempt string) error {
	found, err := m.networks(ctx, dockerapi.AttemptLabel, attempt)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(releaseWithin)
	for _, n := range found {
		for pause := firstPause; ; pause = min(2*pause, mostPause) {
			_, err := m.client.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
			// Docker 20.10 says so of one that it lists no more than for a moment.
			if err == nil || errdefs.IsNotFound(err) || dockerapi.Says(err, "not found") {
				break
			}
			if !dockerapi.Says(err, "in use") || time.Now().After(deadline) {
				return fmt.Errorf("remove the network of attempt %s: %w", attempt, err)
			}
			if err := wait(ctx, pause); err != nil {
				return err
			}
		}
	}
	return nil
}
