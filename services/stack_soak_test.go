package services_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// Twenty builds run while a replica of each service, a manager and a worker are
// killed in turn, and all services are upgraded. Commands run once, but for those
// of the machine that was lost, which run once more elsewhere.
func TestSoakStackOnASwarm(t *testing.T) {
	kittest.Require(t, "soak")
	w := newStackWorld(t)
	w.foreman.LetAll(true)
	w.passed(t, w.propose(t, "hello", 1)...)
	t.Log("a pull request was built")
	w.foreman.LetAll(false)

	heads := w.propose(t, "load", 20)
	runs := map[string]int{}
	for _, head := range heads {
		runs[head] = 1
	}
	w.runsAre(t, runs)
	began := time.Now()
	lap := func(what string) { t.Logf("%v: %s", time.Since(began).Round(time.Second), what) }
	for _, service := range []string{"forge_gateway", "forge_config", "forge_scheduler", "forge_reporter"} {
		tasks, err := w.tasks(t, service)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.node(tasks[0]).API.ContainerKill(t.Context(), tasks[0].Status.ContainerStatus.ContainerID, client.ContainerKillOptions{Signal: "KILL"})
		if err != nil {
			t.Fatal(err)
		}
		w.whole(t)
		lap("a replica of " + service + " was killed and replaced")
	}
	w.runsAre(t, runs)

	manager := w.swarm.Leader(t)
	manager.PowerOff(t)
	w.whole(t)
	lap("the manager that led was killed, and the services stand on others")
	manager.StartDaemon(t)
	heads = append(heads, w.beginOneMore(t, "after-the-manager", runs))

	worker := w.swarm.Nodes[3]
	for head, build := range w.builds(t, heads...) {
		if w.runsOn(t, build.ID) == worker {
			runs[head] = 2
		}
	}
	worker.PowerOff(t)
	w.runsAre(t, runs)
	lap("a worker was killed, and its builds run again")
	worker.StartDaemon(t)

	looks, end := w.look(t)
	for _, version := range []string{"v0.0.1-test", testedVersion} { // there, and back
		w.deploy(t, version)
		for _, head := range w.propose(t, "beside-"+version, 5) {
			heads, runs[head] = append(heads, head), 1
		}
		w.whole(t)
		lap("all services run version " + version)
		w.runsAre(t, runs)
	}
	end()
	t.Logf("people have looked %d times meanwhile", looks.Load())
	w.foreman.LetAll(true)
	w.passed(t, heads...)
	lap("all builds have passed")
	w.runsAre(t, runs)
}

// look has somebody look at builds until end is called. Each request is to be answered.
func (w *stackWorld) look(t *testing.T) (looks *atomic.Int64, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looks = &atomic.Int64{}
	looking.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := w.list(context.WithoutCancel(ctx)); err != nil {
				t.Errorf("while services are replaced: %v", err)
			}
			looks.Add(1)
		}
	})
	return looks, func() { cancel(); looking.Wait() }
}

func (w *stackWorld) beginOneMore(t *testing.T, name string, runs map[string]int) (head string) {
	t.Helper()
	head = w.propose(t, name, 1)[0]
	runs[head] = 1
	w.runsAre(t, runs)
	return head
}

// runsOn is where a build runs; nil where it does not.
func (w *stackWorld) runsOn(t *testing.T, build string) *kittest.SwarmNode {
	t.Helper()
	list, err := w.swarm.Leader(t).API.TaskList(t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("label", "forge.build="+build)})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range list.Items {
		return w.node(task)
	}
	return nil
}
