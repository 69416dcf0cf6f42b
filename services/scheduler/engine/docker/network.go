package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	bridge = "bridge" // the driver, and the name of the Docker engine's own network
	// A network goes with its build, so that a pool may soon have room again.
	poolPause    = 30 * time.Second
	poolPatience = 10 * time.Minute
	// usualPools is how many networks the pools carry that Docker has where daemon.json
	// names none: 172.17.0.0/16 to 172.31.0.0/16, and 192.168.0.0/16 in parts of /20.
	usualPools = 31
	mtuOption  = "com.docker.network.driver.mtu"
)

func (e *Engine) networks(ctx context.Context, label, value string) ([]network.Summary, error) {
	found, err := e.client.NetworkList(ctx, client.NetworkListOptions{Filters: e.labelled(label, value)})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	return found.Items, nil
}

// network makes the attempt's network, unless it is there. Where a Forge was killed
// while it was made, there may be two by now, of which one has to go.
func (e *Engine) network(ctx context.Context, spec engine.Spec) error {
	found, err := e.networks(ctx, dockerapi.AttemptLabel, spec.Attempt)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return e.removeNetworks(ctx, found[1:])
	}
	create := func() error {
		return e.makeNetwork(ctx, dockerapi.Name(spec.Attempt), dockerapi.Labels(e.config.Instance, spec))
	}
	err = create()
	if poolsUsedUp(err) && e.waiting.giveWay(ctx) {
		err = create()
	}
	switch {
	case err == nil:
		return nil
	case poolsUsedUp(err):
		return delayed(spec, poolPause, poolPatience, fmt.Errorf("the Docker engine has no addresses left for another network, and each build has one (%s): "+
			"remove networks that nobody uses (docker network prune), add default-address-pools to its daemon.json, or lower FORGE_CAPACITY", dockerapi.Plain(err)))
	}
	return full(fmt.Errorf("create the network of attempt %s: %w", spec.Attempt, err))
}

func (e *Engine) makeNetwork(ctx context.Context, name string, labels map[string]string) error {
	options, err := e.likeBridge(ctx)
	if err != nil {
		return err
	}
	options.Driver, options.Labels = bridge, labels
	_, err = e.client.NetworkCreate(ctx, name, options)
	return err
}

func (e *Engine) removeNetworks(ctx context.Context, networks []network.Summary) error {
	for _, n := range networks {
		if _, err := e.removeNetwork(ctx, n.ID); err != nil {
			return fmt.Errorf("remove the network of attempt %s: %w", n.Labels[dockerapi.AttemptLabel], err)
		}
	}
	return nil
}

// removeNetwork removes one that no container uses any more, and reports whether it was there.
// A Docker engine whose disk was full when one of them ended takes it for connected still.
func (e *Engine) removeNetwork(ctx context.Context, name string) (bool, error) {
	_, err := e.client.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	if errdefs.IsPermissionDenied(err) {
		found, failed := e.client.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
		if failed != nil {
			return false, err
		}
		for _, end := range found.Network.Containers {
			_, failed = e.client.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: end.Name, Force: true})
			err = errors.Join(err, failed)
		}
		if _, again := e.client.NetworkRemove(ctx, name, client.NetworkRemoveOptions{}); again == nil {
			return true, nil
		}
	}
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// likeBridge has a network be as the Docker engine's own is, which daemon.json sets:
// with its MTU, since packets that the host's network does not carry just vanish,
// and with IPv6 where it has that.
func (e *Engine) likeBridge(ctx context.Context) (client.NetworkCreateOptions, error) {
	options := client.NetworkCreateOptions{Options: map[string]string{}}
	found, err := e.client.NetworkInspect(ctx, bridge, client.NetworkInspectOptions{})
	if err != nil && !errdefs.IsNotFound(err) { // an engine can do without
		return options, fmt.Errorf("inspect the Docker engine's network: %w", err)
	}
	if mtu := found.Network.Options[mtuOption]; mtu != "" && mtu != "0" {
		options.Options[mtuOption] = mtu
	}
	if e.config.MTU != 0 {
		options.Options[mtuOption] = strconv.Itoa(e.config.MTU)
	}
	if found.Network.EnableIPv6 {
		on := true
		options.EnableIPv6 = &on
		// Older Docker engines have no pool of IPv6 addresses.
		options.IPAM = &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: uniqueLocal()}}}
	}
	return options, nil
}

// uniqueLocal is a network out of fd00::/8 that nobody else has (RFC 4193).
func uniqueLocal() netip.Prefix {
	address := [16]byte{0xfd}
	_, _ = rand.Read(address[1:6]) // it never fails
	return netip.PrefixFrom(netip.AddrFrom16(address), 64)
}

// poolsUsedUp recognizes Docker's words, old and new.
func poolsUsedUp(err error) bool {
	return err != nil && dockerapi.Says(err, "non-overlapping IPv4 address pool", "address pools have been fully subnetted")
}

// MostBuilds is how many builds at once have networks, by the pools that the Docker
// engine gives addresses from and the networks of others that use them.
func (e *Engine) MostBuilds(ctx context.Context) (int, error) {
	info, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil {
		return 0, fmt.Errorf("address pools of the Docker engine: %w", err)
	}
	found, err := e.client.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("driver", bridge)})
	if err != nil {
		return 0, fmt.Errorf("list networks: %w", err)
	}
	most := poolCount(info.Info.DefaultAddressPools)
	for _, n := range found.Items {
		if n.Labels[dockerapi.InstanceLabel] != e.config.Instance {
			most--
		}
	}
	return max(most, 1), nil
}

// poolCount is how many IPv4 networks the pools carry.
func poolCount(pools []system.NetworkAddressPool) int {
	const enough = 1 << 16 // more than any machine runs
	count := 0
	for _, pool := range pools {
		if bits := pool.Size - pool.Base.Bits(); pool.Base.Addr().Is4() && bits >= 0 {
			count += 1 << min(bits, 16)
		}
	}
	if count == 0 {
		return usualPools
	}
	return min(count, enough)
}
