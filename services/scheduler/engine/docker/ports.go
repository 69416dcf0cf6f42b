package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// publish has ports of the host lead to the container.
func publish(options client.ContainerCreateOptions, ports []engine.Port) {
	if len(ports) == 0 {
		return
	}
	options.Config.ExposedPorts, options.HostConfig.PortBindings = network.PortSet{}, network.PortMap{}
	for _, p := range ports {
		port, _ := network.PortFrom(p.Container, network.TCP) // the one error is a protocol that is not known
		options.Config.ExposedPorts[port] = struct{}{}
		options.HostConfig.PortBindings[port] = append(options.HostConfig.PortBindings[port],
			network.PortBinding{HostPort: strconv.Itoa(int(p.Host))})
	}
}

// portTaken names who has a port of the host, if that is why a container did not
// start; else nil.
func (e *Engine) portTaken(ctx context.Context, ports []engine.Port, err error) error {
	if !strings.Contains(err.Error(), "port is already allocated") && !strings.Contains(err.Error(), "address already in use") {
		return nil
	}
	var holders []string
	for _, port := range ports {
		if holder := e.holder(ctx, port.Host); holder != "" {
			holders = append(holders, fmt.Sprintf("port %d of the host is taken by %s", port.Host, holder))
		}
	}
	if len(holders) == 0 { // by a process that cannot be seen from here, or it has gone since
		return fault.Newf(fault.Invalid, "a port of the host is taken: %s", dockerapi.Plain(err))
	}
	return fault.New(fault.Invalid, strings.Join(holders, ", "))
}

// holder is who has a port of the host; "" where that cannot be told.
func (e *Engine) holder(ctx context.Context, port uint16) string {
	found, err := e.client.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return ""
	}
	for _, c := range found.Items {
		for _, p := range c.Ports {
			if p.PublicPort != port {
				continue
			}
			if build := c.Labels[dockerapi.BuildLabel]; build != "" {
				return fmt.Sprintf("build %s of %s", build, c.Labels[dockerapi.RepositoryLabel])
			}
			return "container " + strings.TrimPrefix(strings.Join(c.Names, ", "), "/")
		}
	}
	if strings.HasPrefix(e.client.DaemonHost(), "unix://") {
		return listener(port)
	}
	return ""
}
