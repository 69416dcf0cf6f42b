package wire_test

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// The leader loses its power, a worker is cut off for less than Forge waits, and
// is drained: builds go on, each runs once, and what is left in the end is
// nothing.
func TestBuildsOutliveWhatBefallsASwarm(t *testing.T) {
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	lap := func(what string) { t.Logf("%s after %v", what, time.Since(began).Round(100*time.Millisecond)) }
	s := kittest.NewSwarm(t, 3, 1)
	lap("a swarm is there")
	leader, ours, other, worker := s.Nodes[0], s.Nodes[1], s.Nodes[2], s.Nodes[3]
	for _, node := range []*kittest.SwarmNode{other, worker} {
		s.Label(t, node, "builds", "true")
	}
	w := newSwarmWorld(t, s, ours, "FORGE_SWARM_CONSTRAINTS=node.labels.builds==true")
	heads := w.proposeSeveral(t, "change", 6)
	on := w.nodes(t, w.begun(t, heads...))
	if len(on[worker]) == 0 || len(on[other]) == 0 {
		t.Fatalf("%d builds run on the worker and %d on a manager, want some on each", len(on[worker]), len(on[other]))
	}
	lap("builds run")

	leader.PowerOff(t)
	if s.Leader(t) == leader {
		t.Fatal("who has no power leads")
	}
	lap("another manager leads")
	meanwhile := w.proposeSeveral(t, "meanwhile", 1)
	w.begun(t, meanwhile...)
	lap("a build has begun without the first leader")
	leader.StartDaemon(t)

	worker.Cut(t)
	s.Await(t, worker, swarm.NodeStateDown)
	worker.Mend(t)
	s.Await(t, worker, swarm.NodeStateReady)
	lap("a worker was down and is ready")

	s.Drain(t, worker)
	late := w.proposeSeveral(t, "late", 1)
	if on := w.nodes(t, w.begun(t, late...)); len(on[other]) != 1 {
		t.Errorf("a build of a swarm whose worker is drained runs on %v", on)
	}
	lap("a build has begun beside a drained worker")

	w.foreman.LetAll(true)
	w.ranOnce(t, slices.Concat(heads, meanwhile, late)...)
	lap("all have passed")
	w.nothingIsLeft(t, swarmPatience)
	lap("nothing is left")
}

// A shell is as near on a worker as anywhere: no port is opened there, and it comes back
// when Forge does.
func TestAShellReachesAWorkerOfASwarm(t *testing.T) {
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	s := kittest.NewSwarm(t, 1, 1)
	image := s.Image(t)
	w := newSwarmWorld(t, s, s.Nodes[0], "FORGE_SWARM_CONSTRAINTS=node.role==worker")
	began := time.Now()
	_, head := w.propose(t, "change", files(".forge.yml", lines("image: "+image, "keep: 15m", "execute: ['echo half done >left; exit 3']")))
	w.shows(t, head, "forge/test", "failure")
	build := w.builds(t, head)[0].GetId()
	open := w.opensShell(t, build, "sh", "-c", "cat left; exec cat")
	open.says(t, "half done\n")
	w.process("forge").kill()
	open.isLost(t, build)
	w.process("forge").begin(t)
	w.awaitUp(t)
	w.says(t, "half done\n", "shell", build, "--", "cat", "left")
	if on := w.nodes(t, w.builds(t, head)); len(on[s.Nodes[1]]) != 1 {
		t.Errorf("it is kept on %v", on)
	}
	w.says(t, "is removed", "shell", build, "--end")
	w.nothingIsLeft(t, swarmPatience)
	t.Logf("from the pull request to the end of the container: %v", time.Since(began).Round(100*time.Millisecond))
}
