package swarm

import (
	"testing"

	"github.com/moby/moby/api/types/swarm"
)

// What people read, by what Docker's managers and agents say.
func TestReasonsAreWordedForPeople(t *testing.T) {
	nodes := map[string]swarm.Node{}
	for i, state := range []swarm.NodeState{swarm.NodeStateReady, swarm.NodeStateReady, swarm.NodeStateReady, swarm.NodeStateDown, swarm.NodeStateUnknown} {
		node := swarm.Node{ID: string(rune('a' + i)), Status: swarm.NodeStatus{State: state}}
		node.Spec.Availability = swarm.NodeAvailabilityActive
		node.Description.Resources = swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 16 << 30}
		node.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
		nodes[node.ID] = node
	}
	task := func(said string) swarm.Task {
		return swarm.Task{
			Status: swarm.TaskStatus{State: swarm.TaskStatePending, Err: "no suitable node (" + said + ")"},
			Spec:   swarm.TaskSpec{Resources: &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 8 << 30}}},
		}
	}
	for said, want := range map[string]string{
		"insufficient resources on 3 nodes; 2 nodes not available for new tasks":            "no machine has 4 CPUs and 8GiB free (5 machines, 2 not ready)",
		"insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node": "no machine has 4 CPUs and 8GiB free (5 machines, 1 left out by constraints, 2 not ready)",
		"insufficient resources on 2 nodes; unsupported platform on 1 node":                 "no machine has 4 CPUs and 8GiB free (5 machines, 1 of another platform, 2 not ready)",
		"host-mode port already in use on 3 nodes":                                          "its ports are taken on each machine that could run it (5 machines, 2 not ready)",
		"unsupported platform on 3 nodes":                                                   "no machine has a platform of its image (5 machines, 2 not ready)",
		"scheduling constraints not satisfied on 3 nodes":                                   "no machine that has forgexec meets node.role==worker (5 machines, 2 not ready)",
		"missing plugin on 3 nodes":                                                         "no suitable node (missing plugin on 3 nodes)",
	} {
		if got := unplaced(task(said), []string{"node.role==worker"}, nodes); got != want {
			t.Errorf("%s:\n got %s\nwant %s", said, got, want)
		}
	}
	if got := unplaced(task("scheduling constraints not satisfied on 3 nodes"), nil, nodes); got != "no machine has forgexec yet (5 machines, 2 not ready)" {
		t.Errorf("got %s", got)
	}
	large := task("")
	large.Spec.Resources.Reservations = &swarm.Resources{MemoryBytes: 64 << 30}
	if got := tooLarge(large, nodes); got != "it asks for 64GiB; the largest machine has 16GiB" {
		t.Errorf("got %s", got)
	}
	large.Spec.Resources.Reservations = &swarm.Resources{NanoCPUs: 45e8}
	if got := tooLarge(large, nodes); got != "it asks for 4.5 CPUs; the largest machine has 4 CPUs" {
		t.Errorf("got %s", got)
	}
	foreigner := task("")
	foreigner.Spec.Placement = &swarm.Placement{Platforms: []swarm.Platform{{OS: "linux", Architecture: "arm64"}}}
	if got := foreign(&unit{imageName: "octo/tools:1"}, foreigner, nodes); got != "image octo/tools:1 is for linux/arm64; the machines of the swarm are linux/amd64" {
		t.Errorf("got %s", got)
	}
	if got := foreign(&unit{imageName: "octo/tools:1", platform: "linux/arm64"}, foreigner, nodes); got != "it asks for platform linux/arm64; the machines of the swarm are linux/amd64" {
		t.Errorf("got %s", got)
	}
	foreigner.Spec.Placement.Platforms = append(foreigner.Spec.Placement.Platforms, swarm.Platform{OS: "linux", Architecture: "amd64"})
	if got := foreign(&unit{imageName: "octo/tools:1"}, foreigner, nodes); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestWhatADockersAgentSaysForGoodIsSaidOnce(t *testing.T) {
	u := &unit{imageName: "octo/tools:1"}
	for said, want := range map[string]string{
		"starting container failed: unable to find user joe: no matching entries in passwd file":                                                            "image octo/tools:1 does not know whom its commands are to run as: unable to find user joe: no matching entries in passwd file",
		"starting container failed: driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated": "a port of machine worker-2 is taken: driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated",
		"invalid mount config for type \"bind\": bind source path does not exist: /x":                                                                       "the container cannot be started: invalid mount config for type \"bind\": bind source path does not exist: /x",
	} {
		if got := neverStarts(u, swarm.Task{Status: swarm.TaskStatus{Err: said}}, "worker-2").Error(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestTheTaskThatCountsIsOneThatMayRun(t *testing.T) {
	nodes := map[string]swarm.Node{"up": {Status: swarm.NodeStatus{State: swarm.NodeStateReady}}, "down": {Status: swarm.NodeStatus{State: swarm.NodeStateDown}}}
	task := func(id, node string, state swarm.TaskState, version int) swarm.Task {
		made := swarm.Task{ID: id, NodeID: node, Status: swarm.TaskStatus{State: state}}
		made.CreatedAt = made.CreatedAt.AddDate(0, 0, version)
		return made
	}
	for want, tasks := range map[string][]swarm.Task{
		"on a machine that is heard of": {
			task("lost", "down", swarm.TaskStateRunning, 3), task("on a machine that is heard of", "up", swarm.TaskStateRunning, 1), task("newest", "up", swarm.TaskStateFailed, 4),
		},
		"lost":   {task("lost", "down", swarm.TaskStateRunning, 1), task("newest", "up", swarm.TaskStateFailed, 2)},
		"newest": {task("newest", "up", swarm.TaskStateFailed, 2), task("older", "up", swarm.TaskStateComplete, 1)},
	} {
		if got, there := pick(tasks, nodes); !there || got.ID != want {
			t.Errorf("picked %q, want %q", got.ID, want)
		}
	}
	if _, there := pick(nil, nodes); there {
		t.Error("picked one of none")
	}
}
