package wire_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// many is how many builds run while something befalls the swarm.
const many = 20

// soaked is a swarm of three managers and a worker. Builds run on all but the
// manager that leads at first; Forge speaks to another.
type soaked struct {
	*swarmWorld
	leader, ours, other, worker *kittest.SwarmNode
	began                       time.Time
}

// lapf says how long it took until then.
func (k *soaked) lapf(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("after %v: %s", time.Since(k.began).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

func newSoaked(t *testing.T) *soaked {
	t.Helper()
	kittest.Require(t, "soak")
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s := kittest.NewSwarm(t, 3, 1)
	k := &soaked{began: began, leader: s.Nodes[0], ours: s.Nodes[1], other: s.Nodes[2], worker: s.Nodes[3]}
	for _, node := range s.Nodes[1:] {
		s.Label(t, node, "builds", "true")
	}
	k.swarmWorld = newSwarmWorld(t, s, k.ours, "FORGE_SWARM_CONSTRAINTS=node.labels.builds==true")
	k.lapf(t, "a swarm and a Forge are there")
	return k
}

// load returns the heads of many builds that run, and those that run on the worker.
func (k *soaked) load(t *testing.T) (heads []string, onWorker map[string]bool) {
	t.Helper()
	heads = k.proposeSeveral(t, "load", many)
	onWorker = map[string]bool{}
	for _, build := range k.nodes(t, k.begun(t, heads...))[k.worker] {
		onWorker[build.GetSha()] = true
	}
	if len(onWorker) == 0 {
		t.Fatal("no build runs on the worker")
	}
	k.lapf(t, "%d builds run, %d of them on the worker", len(heads), len(onWorker))
	return heads, onWorker
}

// end has all builds end; these have run once.
func (k *soaked) end(t *testing.T, heads ...string) {
	t.Helper()
	k.foreman.LetAll(true)
	k.ranOnce(t, heads...)
	k.lapf(t, "%d builds have passed", len(heads))
}

func TestSoakSwarmLosesItsLeader(t *testing.T) {
	k := newSoaked(t)
	heads, _ := k.load(t)
	heads = append(heads, k.proposeSeveral(t, "late", many)...) // while these start
	k.leader.PowerOff(t)
	k.lapf(t, "the leader is killed")
	k.swarm.Leader(t)
	k.lapf(t, "another manager leads")
	k.begun(t, heads...)
	k.lapf(t, "all builds have begun")
	k.end(t, heads...)
	k.leader.StartDaemon(t)
	k.nothingIsLeft(t, swarmPatience)
	k.lapf(t, "nothing is left")
}

func TestSoakSwarmWorkerIsCutOffForLessThanTheGrace(t *testing.T) {
	k := newSoaked(t)
	heads, _ := k.load(t)
	k.worker.Cut(t)
	wait(t, 30*time.Second)
	k.worker.Mend(t)
	k.swarm.Await(t, k.worker, swarm.NodeStateReady)
	k.lapf(t, "the worker is back")
	k.end(t, heads...)
	k.nothingIsLeft(t, swarmPatience)
	k.lapf(t, "nothing is left")
}

// Longer than the grace: tests run once more elsewhere; a deploy ends as an error
// and its environment waits, until the machine is back.
func TestSoakSwarmWorkerIsCutOffForMoreThanTheGrace(t *testing.T) {
	k := newSoaked(t)
	for _, node := range []*kittest.SwarmNode{k.ours, k.other} {
		k.swarm.Label(t, node, "builds", "later")
	}
	deployed, next := k.deploys(t)
	for _, node := range []*kittest.SwarmNode{k.ours, k.other} {
		k.swarm.Label(t, node, "builds", "true")
	}
	heads, onWorker := k.load(t)

	cut := time.Now()
	k.worker.Cut(t)
	for head := range onWorker {
		kittest.Eventually(t, swarmPatience, func() error {
			if build := k.builds(t, head)[0]; build.GetAttempt() != 2 || k.foreman.Runs(build.GetId()) != 2 {
				return fmt.Errorf("build %s is in attempt %d: %s", build.GetId(), build.GetAttempt(), build.GetMessage())
			}
			return nil
		})
	}
	t.Logf("tests run once more %v after the cut", time.Since(cut))
	failed := k.shows(t, deployed, "forge/deploy-staging", "error")
	t.Logf("the deploy is an error %v after the cut: %s", time.Since(cut), failed.Description)
	if build := k.builds(t, deployed)[0]; !strings.Contains(build.GetMessage(), "node-4") || build.GetReason() != schedulerv1.Build_REASON_LOST {
		t.Errorf("the deploy says %s: %s", build.GetReason(), build.GetMessage())
	}
	wait(t, time.Until(cut.Add(150*time.Second)))
	if waiting := k.builds(t, next)[0]; waiting.GetState() != schedulerv1.Build_STATE_WAITING {
		t.Errorf("the next deploy is %s while the last one's machine is not heard of: %s", waiting.GetState(), waiting.GetMessage())
	}

	k.worker.Mend(t)
	k.foreman.LetAll(true)
	k.shows(t, next, "forge/deploy-staging", "success")
	t.Logf("the next deploy has passed %v after the cut", time.Since(cut))
	for _, head := range heads {
		k.shows(t, head, "forge/test", "success")
		want := 1
		if onWorker[head] {
			want = 2
		}
		if build := k.builds(t, head)[0]; k.foreman.Runs(build.GetId()) != want {
			t.Errorf("the commands of build %s ran %d times, want %d", build.GetId(), k.foreman.Runs(build.GetId()), want)
		}
	}
	k.nothingIsLeft(t, swarmPatience)
}

// deploys merges two pull requests and returns the commits. The deploy of the
// first runs, that of the second waits for it.
func (k *soaked) deploys(t *testing.T) (running, waiting string) {
	t.Helper()
	var merged []string
	for _, name := range []string{"first", "second"} {
		number, head := k.propose(t, name, files(name, name))
		k.foreman.Let(k.begun(t, head)[0].GetId())
		k.shows(t, head, "forge/test", "success")
		merged = append(merged, k.merge(t, number))
		if len(merged) == 1 {
			k.begun(t, merged[0])
		}
	}
	kittest.Eventually(t, swarmPatience, func() error {
		if len(k.builds(t, merged[1])) == 0 {
			return errors.New("the second deploy is not there")
		}
		return nil
	})
	return merged[0], merged[1]
}

func TestSoakSwarmWorkerIsDrained(t *testing.T) {
	k := newSoaked(t)
	heads, _ := k.load(t)
	k.swarm.Drain(t, k.worker)
	late := k.proposeSeveral(t, "late", many/2)
	if on := k.nodes(t, k.begun(t, late...)); len(on[k.worker]) > 0 {
		t.Errorf("%d builds were placed on a drained machine", len(on[k.worker]))
	}
	k.lapf(t, "builds have begun beside a drained worker")
	k.end(t, append(heads, late...)...)
	k.nothingIsLeft(t, swarmPatience)
	k.lapf(t, "nothing is left")
}

func TestSoakSwarmWorkerIsLostForGood(t *testing.T) {
	k := newSoaked(t)
	heads, onWorker := k.load(t)
	killed := time.Now()
	k.worker.PowerOff(t)
	for head := range onWorker {
		kittest.Eventually(t, swarmPatience, func() error {
			if build := k.builds(t, head)[0]; k.foreman.Runs(build.GetId()) != 2 {
				return fmt.Errorf("build %s is in attempt %d: %s", build.GetId(), build.GetAttempt(), build.GetMessage())
			}
			return nil
		})
	}
	if took := time.Since(killed); took > 150*time.Second {
		t.Errorf("builds of a machine that was lost for good run again after %v, want at most 150s", took)
	} else {
		t.Logf("builds of the lost machine run again after %v", took)
	}
	k.swarm.Remove(t, k.worker)
	k.foreman.LetAll(true)
	for _, head := range heads {
		k.shows(t, head, "forge/test", "success")
	}
	k.nothingIsLeft(t, swarmPatience)
}

// Without a quorum nobody knows anything, and so nothing ends.
func TestSoakSwarmLosesItsQuorum(t *testing.T) {
	k := newSoaked(t)
	k.swarm.Label(t, k.other, "builds", "later") // whose power is taken, too
	heads, _ := k.load(t)
	k.leader.PowerOff(t)
	k.other.PowerOff(t)
	queued := k.proposeSeveral(t, "queued", 2)
	wait(t, time.Minute)
	for _, build := range k.builds(t, heads...) {
		if build.GetState() != schedulerv1.Build_STATE_RUNNING || build.GetAttempt() != 1 {
			t.Errorf("without a quorum build %s is %s in attempt %d: %s", build.GetId(), build.GetState(), build.GetAttempt(), build.GetMessage())
		}
	}
	k.leader.StartDaemon(t)
	k.other.StartDaemon(t)
	k.swarm.Leader(t)
	k.begun(t, queued...)
	k.lapf(t, "what was queued has begun, with a quorum")
	k.end(t, append(heads, queued...)...)
	k.nothingIsLeft(t, swarmPatience)
	k.lapf(t, "nothing is left")
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// A machine that joins gets builds once it can run them, and no build pays for it.
func TestSoakSwarmGrowsUnderLoad(t *testing.T) {
	k := newSoaked(t)
	k.foreman.LetAll(true)
	heads := k.proposeSeveral(t, "before", many)
	late := k.swarm.Join(t, false)
	k.swarm.Label(t, late, "builds", "true")
	heads = append(heads, k.proposeSeveral(t, "after", many)...)
	k.ranOnce(t, heads...)
	k.foreman.LetAll(false)
	held := k.proposeSeveral(t, "held", many)
	if on := k.nodes(t, k.begun(t, held...)); len(on[late]) == 0 {
		t.Error("no build runs on the machine that has joined")
	}
	k.foreman.LetAll(true)
	k.ranOnce(t, held...)
	k.nothingIsLeft(t, swarmPatience)
}

// A third of two hundred builds is cancelled, whatever they are at: nothing stays.
func TestSoakSwarmForgetsItsBuilds(t *testing.T) {
	k := newSoaked(t)
	k.foreman.LetAll(true)
	api := schedulerv1.NewBuildServiceClient(k.dial(t, "scheduler"))
	const all, atOnce = 200, 10
	var heads []string
	cancelled := 0
	began := time.Now()
	for n := range all {
		heads = append(heads, k.proposeSeveral(t, fmt.Sprintf("row-%d", n), 1)...)
		if n%3 == 0 {
			wait(t, time.Duration(rand.Int64N(int64(3*time.Second))))
			if builds := k.builds(t, heads[n]); len(builds) == 1 {
				if _, err := api.CancelBuild(asAdmin(t.Context()), &schedulerv1.CancelBuildRequest{BuildId: builds[0].GetId()}); err == nil {
					cancelled++
				}
			}
		}
		kittest.Eventually(t, swarmPatience, func() error {
			open := 0
			for _, build := range k.builds(t, heads...) {
				if build.GetState() < schedulerv1.Build_STATE_PASSED {
					open++
				}
			}
			if open >= atOnce || n == all-1 && open > 0 {
				return fmt.Errorf("%d builds are under way", open)
			}
			return nil
		})
	}
	states := map[schedulerv1.Build_State]int{}
	for _, build := range k.builds(t, heads...) {
		states[build.GetState()]++
		if build.GetState() != schedulerv1.Build_STATE_PASSED && build.GetState() != schedulerv1.Build_STATE_CANCELLED {
			t.Errorf("build %s is %s: %s", build.GetId(), build.GetState(), build.GetMessage())
		}
	}
	t.Logf("%d builds, %d of which were cancelled, in %v: %v", all, cancelled, time.Since(began), states)
	k.nothingIsLeft(t, time.Minute)
	tasks, err := k.swarm.Leader(t).API.TaskList(t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("label", "forge.attempt")})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks.Items {
		t.Errorf("a task of a build is left, %s, which reserves %+v", task.Status.State, task.Spec.Resources.Reservations)
	}
}

// Two versions of Forge, with another forgexec each, share a swarm and leave each
// other's installer alone.
func TestSoakSwarmServesTwoVersions(t *testing.T) {
	k := newSoaked(t)
	other := newSwarmWorld(t, k.swarm, k.other)
	heads := k.proposeSeveral(t, "old", many/2)
	others := other.proposeSeveral(t, "new", many/2)
	k.begun(t, heads...)
	other.begun(t, others...)
	before := k.installers(t)
	if len(before) != 2 {
		t.Fatalf("there are installers %v, want one of each version", before)
	}
	wait(t, 150*time.Second) // each Forge has looked after its own twice
	kittest.Want(t, k.installers(t), before, "installers")
	k.foreman.LetAll(true)
	other.foreman.LetAll(true)
	k.ranOnce(t, heads...)
	other.ranOnce(t, others...)
	k.nothingIsLeft(t, swarmPatience)
}

// installers are the services that bring forgexec, each with its version and tasks.
func (k *soaked) installers(t *testing.T) map[string]string {
	t.Helper()
	api := k.swarm.Leader(t).API
	services, err := api.ServiceList(t.Context(), client.ServiceListOptions{Filters: client.Filters{}.Add("label", "forge.installer")})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, service := range services.Items {
		tasks, err := api.TaskList(t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("service", service.ID)})
		if err != nil {
			t.Fatal(err)
		}
		found[service.Spec.Name] = fmt.Sprintf("version %d, %d tasks", service.Version.Index, len(tasks.Items))
	}
	return found
}
