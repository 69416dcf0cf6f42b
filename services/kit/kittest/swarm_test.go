package kittest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestSwarmOfOneRunsTasksThatReachThisHost(t *testing.T) {
	began := time.Now()
	s := kittest.NewSwarm(t, 1, 0)
	t.Logf("a swarm of one is there after %v", time.Since(began))
	image := s.Image(t)
	hits := count(t, s)
	runJob(t, s, s.Nodes[0], image, hits.command("once"))
	hits.next(t)
	t.Logf("a task on an overlay has reached this host after %v", time.Since(began))
}

func TestSwarmSurvivesWhatItsTestDoesToIt(t *testing.T) {
	s := kittest.NewSwarm(t, 3, 1)
	image := s.Image(t)
	hits := count(t, s)
	worker := s.Nodes[3]

	runJob(t, s, worker, image, hits.command("forever"))
	hits.next(t)
	worker.Cut(t)
	hits.silent(t)
	s.Await(t, worker, swarm.NodeStateDown)
	worker.Mend(t)
	s.Await(t, worker, swarm.NodeStateReady)
	hits.next(t) // of the same task, which was never told to end

	leader := s.Leader(t)
	leader.PowerOff(t)
	if next := s.Leader(t); next == leader || leader.Runs() {
		t.Errorf("%s leads without power", next.Name)
	}
	leader.StartDaemon(t)
	s.Await(t, leader, swarm.NodeStateReady)

	worker.KillDaemon(t)
	hits.seen = hits.count.Load()
	hits.next(t)
	worker.PowerOff(t)
	hits.silent(t)
	worker.StartDaemon(t)
	s.Await(t, worker, swarm.NodeStateReady)

	s.Drain(t, worker)
	late := s.Join(t, false)
	runJob(t, s, late, image, hits.command("once"))
	hits.next(t)
	s.Activate(t, worker)
	worker.PowerOff(t)
	s.Remove(t, worker)
}

// What a killed test leaves is gone once the next one has its swarm.
func TestSwarmOfAKilledTestIsRemoved(t *testing.T) {
	if os.Getenv("SWARM_TO_BE_KILLED") != "" {
		s := kittest.NewSwarm(t, 1, 0)
		runJob(t, s, s.Nodes[0], s.Image(t), "sleep 1000")
		_, _ = fmt.Fprintln(os.Stdout, "swarm", s.Address, s.Nodes[0].URL)
		<-t.Context().Done()
	}
	kittest.Require(t, "swarm")
	killed := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	killed.Env = append(os.Environ(), "SWARM_TO_BE_KILLED=1")
	output, err := killed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	var address, url string
	for lines := bufio.NewScanner(output); url == "" && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "swarm %s %s", &address, &url)
	}
	_ = killed.Process.Kill()
	_ = killed.Wait()
	socket, found := strings.CutPrefix(url, "unix://")
	if _, err := os.Stat(socket); !found || err != nil {
		t.Fatalf("the killed test had no swarm: %q, %v", url, err)
	}

	next := kittest.NewSwarm(t, 1, 0)
	if next.Nodes[0].URL == url {
		t.Error("the folder of the killed test is used once more")
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the killed test has left %s: %v", socket, err)
	}
	rules, err := exec.CommandContext(t.Context(), "iptables", "--wait", "--list-rules", "FORWARD").Output()
	if err != nil {
		t.Fatal(err)
	}
	kittest.Want(t, next.Address, address, "the first free network is taken")
	if third := strings.Split(address, ".")[2]; strings.Count(string(rules), "-i forge-t"+third+" ") != 1 {
		t.Errorf("not one rule for a network:\n%s", rules)
	}
}

// hits counts what containers say to this host.
type hits struct {
	address string
	count   atomic.Int64
	seen    int64 // by the test
}

func count(t *testing.T, s *kittest.Swarm) *hits {
	t.Helper()
	h := &hits{}
	h.address = kittest.ServeAt(t, s.Address, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { h.count.Add(1) }))
	return h
}

// command hits once, or forever.
func (h *hits) command(often string) string {
	host, port, _ := net.SplitHostPort(h.address)
	command := fmt.Sprintf(`printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 1 %s %s`, host, port)
	if often == "forever" {
		return "while :; do " + command + "; sleep 0.1; done"
	}
	return command
}

// next waits for one that the test has not seen.
func (h *hits) next(t *testing.T) {
	t.Helper()
	kittest.Eventually(t, kittest.SwarmWithin, func() error {
		if h.count.Load() == h.seen {
			return errors.New("nothing hits")
		}
		return nil
	})
	h.seen = h.count.Load()
}

// silent returns once nothing has hit for two seconds.
func (h *hits) silent(t *testing.T) {
	t.Helper()
	since := time.Now()
	kittest.Eventually(t, kittest.SwarmWithin, func() error {
		if now := h.count.Load(); now != h.seen {
			h.seen, since = now, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return errors.New("something hits still")
		}
		return nil
	})
}

// runJob starts a job on the node, with an overlay.
func runJob(t *testing.T, s *kittest.Swarm, node *kittest.SwarmNode, image, command string) {
	t.Helper()
	api := s.Leader(t).API
	overlay, err := api.NetworkCreate(t.Context(), strings.ReplaceAll(image, "/", "-")[:20]+node.Name, client.NetworkCreateOptions{Driver: "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	once := uint64(1)
	_, err = api.ServiceCreate(t.Context(), client.ServiceCreateOptions{Spec: swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: "job-" + overlay.ID[:8]},
		Mode:        swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &once, TotalCompletions: &once}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: image, Command: []string{"sh", "-c", command}},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
			Placement:     &swarm.Placement{Constraints: []string{"node.id==" + node.ID}},
			Networks:      []swarm.NetworkAttachmentConfig{{Target: overlay.ID}},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// The foreman hears each run of a build once, and lets go whom the test lets go.
func TestForemanCountsRunsAndLetsBuildsGo(t *testing.T) {
	f := kittest.NewForeman(t, "127.0.0.1")
	build := func(id string) *exec.Cmd {
		script := strings.ReplaceAll(f.Script(), "nc -w 5", installedBusybox(t)+" nc -w 5")
		command := exec.CommandContext(t.Context(), "sh", "-c", script)
		command.Env = append(os.Environ(), "FORGE_BUILD_ID="+id)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		return command
	}
	begun := func(id string, runs int) {
		kittest.Eventually(t, kittest.SwarmWithin, func() error {
			if got := f.Runs(id); got != runs {
				return fmt.Errorf("build %s began %d times, want %d", id, got, runs)
			}
			return nil
		})
	}
	first, again, other := build("a"), build("a"), build("b")
	begun("a", 2)
	begun("b", 1)
	f.Let("a")
	for _, command := range []*exec.Cmd{first, again} {
		if err := command.Wait(); err != nil {
			t.Error(err)
		}
	}
	f.LetAll(true)
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	begun("a", 2)
	begun("b", 1)
}

func installedBusybox(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests run busybox: install busybox-static")
	}
	return path
}
