package swarm

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// managers are those of the swarm, asked through one of them.
type managers struct {
	config     Config
	client     *client.Client
	registries dockerapi.Registries
	access     *dockerapi.Access

	mu    sync.Mutex
	names map[string]string // of machines, by id, those that have left too
}

// nodes are the machines of the swarm, by id. Their names are remembered.
func (m *managers) nodes(ctx context.Context) (map[string]swarm.Node, error) {
	found, err := m.client.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the machines of the swarm: %w", err)
	}
	nodes := make(map[string]swarm.Node, len(found.Items))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range found.Items {
		nodes[node.ID] = node
		m.names[node.ID] = cmp.Or(node.Description.Hostname, node.ID)
	}
	return nodes, nil
}

// machine is the name of a machine, one that has left the swarm too; "" for none.
func (m *managers) machine(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.names[id], id)
}

// heardOf reports whether the managers hear of a machine.
func heardOf(node swarm.Node) bool {
	return node.Status.State == swarm.NodeStateReady
}

// takesTasks reports whether new tasks are placed on a machine.
func takesTasks(node swarm.Node) bool {
	return heardOf(node) && node.Spec.Availability == swarm.NodeAvailabilityActive
}
