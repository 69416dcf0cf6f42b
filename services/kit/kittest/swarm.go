package kittest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// SwarmWithin is how long a swarm may take for what is quick when the machine is
// not busy: a daemon that starts, a node that joins, a leader that is elected.
const SwarmWithin = 90 * time.Second

// Swarm is Docker engines that form a swarm on this one machine: each has a
// network, a process and a mount namespace of its own, and a cable to one bridge.
// They reach each other and this host, and nothing else: there is no default
// route, so a look-up at a registry fails at once.
type Swarm struct {
	// Address of this host, as the nodes and their containers reach it.
	Address string
	// Nodes in the order they joined; the first has made the swarm.
	Nodes []*SwarmNode

	slot   *swarmSlot
	images [][]byte // as tar, for nodes to come
}

// NewSwarm starts managers and workers, and ends them with the test. It needs at
// least one manager. A swarm costs seconds: one for several tests is a test with
// subtests.
func NewSwarm(t testing.TB, managers, workers int) *Swarm {
	t.Helper()
	Require(t, "swarm")
	slot, err := takeSwarmSlot(t.Context())
	if err != nil {
		t.Fatalf("a place for a swarm: %v", err)
	}
	s := &Swarm{Address: slot.address(1), slot: slot}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, node := range s.Nodes {
			if said := node.lastWords(); t.Failed() && said != "" {
				t.Logf("dockerd of %s said last:\n%s", node.Name, said)
			}
			node.end()
		}
		if err := slot.release(ctx); err != nil {
			t.Errorf("remove a swarm: %v", err)
		}
	})
	if err := slot.prepare(t.Context()); err != nil {
		t.Fatalf("the network of a swarm: %v", err)
	}
	for i := range managers + workers {
		s.Join(t, i < managers)
	}
	return s
}

// Join adds a node, with the images that the others have, and returns when it is
// ready.
func (s *Swarm) Join(t testing.TB, manager bool) *SwarmNode {
	t.Helper()
	node, err := s.slot.newNode(t, len(s.Nodes)+1)
	if node != nil {
		s.Nodes = append(s.Nodes, node)
	}
	if err != nil {
		t.Fatalf("node %d of a swarm: %v", len(s.Nodes), err)
	}
	node.StartDaemon(t)
	for _, image := range s.images {
		node.load(t, image)
	}
	if len(s.Nodes) == 1 {
		_, err = node.API.SwarmInit(t.Context(), client.SwarmInitOptions{ListenAddr: "0.0.0.0:2377", AdvertiseAddr: node.Address})
	} else {
		err = s.join(t, node, manager)
	}
	if err != nil {
		t.Fatalf("%s does not join: %v", node.Name, err)
	}
	info, err := node.API.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.ID = info.Info.Swarm.NodeID
	s.Await(t, node, swarm.NodeStateReady)
	return node
}

func (s *Swarm) join(t testing.TB, node *SwarmNode, manager bool) error {
	t.Helper()
	leader := s.Leader(t)
	inspected, err := leader.API.SwarmInspect(t.Context(), client.SwarmInspectOptions{})
	if err != nil {
		return err
	}
	token := inspected.Swarm.JoinTokens.Worker
	if manager {
		token = inspected.Swarm.JoinTokens.Manager
	}
	_, err = node.API.SwarmJoin(t.Context(), client.SwarmJoinOptions{
		ListenAddr: "0.0.0.0:2377", AdvertiseAddr: node.Address, RemoteAddrs: []string{leader.Address + ":2377"}, JoinToken: token,
	})
	return err
}

// Leader is the manager that leads. It waits for one, and asks those alone whose
// daemon runs.
func (s *Swarm) Leader(t testing.TB) *SwarmNode {
	t.Helper()
	var leader *SwarmNode
	Eventually(t, SwarmWithin, func() error {
		list, err := s.list(t.Context())
		if err != nil {
			return err
		}
		for _, node := range s.Nodes {
			if status := list[node.ID].ManagerStatus; status != nil && status.Leader && node.Runs() {
				leader = node
				return nil
			}
		}
		return errors.New("no manager leads")
	})
	return leader
}

// Await returns when the managers see the node in that state.
func (s *Swarm) Await(t testing.TB, node *SwarmNode, state swarm.NodeState) {
	t.Helper()
	Eventually(t, SwarmWithin, func() error {
		list, err := s.list(t.Context())
		if seen := list[node.ID].Status; err == nil && seen.State != state {
			err = fmt.Errorf("%s is %s (%s), not %s", node.Name, seen.State, seen.Message, state)
		}
		return err
	})
}

// list returns what the first manager that answers knows of each node.
func (s *Swarm) list(ctx context.Context) (map[string]swarm.Node, error) {
	err := errors.New("no daemon runs")
	for _, node := range s.Nodes {
		if !node.Runs() {
			continue
		}
		var result client.NodeListResult
		if result, err = node.ask(ctx); err == nil {
			list := map[string]swarm.Node{}
			for _, item := range result.Items {
				list[item.ID] = item
			}
			return list, nil
		}
	}
	return nil, err
}

// Drain has no task placed on the node any more; jobs that run there go on.
// Activate takes that back.
func (s *Swarm) Drain(t testing.TB, node *SwarmNode) {
	t.Helper()
	s.update(t, node, func(spec *swarm.NodeSpec) { spec.Availability = swarm.NodeAvailabilityDrain })
}

// Activate has tasks placed on the node.
func (s *Swarm) Activate(t testing.TB, node *SwarmNode) {
	t.Helper()
	s.update(t, node, func(spec *swarm.NodeSpec) { spec.Availability = swarm.NodeAvailabilityActive })
}

// Label gives the node a label, such as a constraint asks for.
func (s *Swarm) Label(t testing.TB, node *SwarmNode, key, value string) {
	t.Helper()
	s.update(t, node, func(spec *swarm.NodeSpec) {
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[key] = value
	})
}

func (s *Swarm) update(t testing.TB, node *SwarmNode, change func(*swarm.NodeSpec)) {
	t.Helper()
	Eventually(t, SwarmWithin, func() error { // what a node reports meanwhile changes its version
		api := s.Leader(t).API
		inspected, err := api.NodeInspect(t.Context(), node.ID, client.NodeInspectOptions{})
		if err != nil {
			return err
		}
		spec := inspected.Node.Spec
		change(&spec)
		_, err = api.NodeUpdate(t.Context(), node.ID, client.NodeUpdateOptions{Version: inspected.Node.Version, Spec: spec})
		return err
	})
}

// Remove has the swarm forget a worker, whatever it runs, as a person does by
// `docker node rm --force`.
func (s *Swarm) Remove(t testing.TB, node *SwarmNode) {
	t.Helper()
	if _, err := s.Leader(t).API.NodeRemove(t.Context(), node.ID, client.NodeRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// Image makes an image as the function of that name does, the same on every node.
// It goes with the swarm.
func (s *Swarm) Image(t testing.TB, changes ...string) (name string) {
	t.Helper()
	name = Image(t, s.Nodes[0].API, changes...)
	s.spread(t, name)
	return name
}

// ImageOf makes an image of its root, a tar, as Image does.
func (s *Swarm) ImageOf(t testing.TB, root []byte, changes ...string) (name string) {
	t.Helper()
	name = ImageOf(t, s.Nodes[0].API, root, changes...)
	s.spread(t, name)
	return name
}

// ImageWith makes an image that holds a file of this host, which is a program, at a
// path and nothing else.
func (s *Swarm) ImageWith(t testing.TB, path, from string) (name string) {
	t.Helper()
	program, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(program))}); err != nil {
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

func (s *Swarm) spread(t testing.TB, name string) {
	t.Helper()
	saved, err := s.Nodes[0].API.ImageSave(t.Context(), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(saved)
	if err := errors.Join(err, saved.Close()); err != nil {
		t.Fatal(err)
	}
	s.Load(t, image)
}

// Load loads an image, a tar as `docker save` writes it, on every node that runs,
// and on those to come.
func (s *Swarm) Load(t testing.TB, image []byte) {
	t.Helper()
	s.images = append(s.images, image)
	for _, node := range s.Nodes {
		if node.Runs() {
			node.load(t, image)
		}
	}
}

func (n *SwarmNode) load(t testing.TB, image []byte) {
	t.Helper()
	result, err := n.API.ImageLoad(t.Context(), bytes.NewReader(image), client.ImageLoadWithQuiet(true))
	if err != nil {
		t.Fatalf("load an image on %s: %v", n.Name, err)
	}
	_, err = io.Copy(io.Discard, result)
	if err := errors.Join(err, result.Close()); err != nil {
		t.Fatalf("load an image on %s: %v", n.Name, err)
	}
}

// ask bounds a question, since a manager without a quorum answers late.
func (n *SwarmNode) ask(ctx context.Context) (client.NodeListResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return n.API.NodeList(ctx, client.NodeListOptions{})
}
