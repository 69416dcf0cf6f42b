package kittest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// SwarmNode is one machine of a Swarm.
type SwarmNode struct {
	// ID is the swarm's, Name its host name; Address is reached from here and from
	// the other nodes.
	ID, Name, Address string
	// URL of its engine, as for DOCKER_HOST, and a client there.
	URL string
	API *client.Client

	dir, cable, cgroup string
	machine            *exec.Cmd // holds its namespaces
	lifeline           io.Closer
	init               string // process id of the first process in there, as seen from here
	daemon             *exec.Cmd
	exited             chan struct{} // closed once the daemon has ended
}

// first is the first process of a machine. Its standard input is its lifeline:
// once the test's process is gone, however it ended, so is all that runs in
// there. What kills every other process kills cat, which then begins anew. Its own
// /run has Docker's socket at the usual place, for services that are given it.
const first = `read -r pid rest </proc/self/stat
mount -t proc none /proc
mount -t tmpfs none /run
hostname "$1"
echo "$pid"
until cat >/dev/null; do :; done`

// newNode starts a machine without a daemon. What it returns besides an error is
// to be ended, too.
func (s *swarmSlot) newNode(t testing.TB, number int) (*SwarmNode, error) {
	t.Helper()
	n := &SwarmNode{
		Name: fmt.Sprintf("node-%d", number), Address: s.address(10 + number), cable: fmt.Sprintf("%s-%d", s.bridge(), number),
		dir: filepath.Join(s.dir, fmt.Sprintf("node-%d", number)), cgroup: fmt.Sprintf("/%s/node-%d", s.bridge(), number),
	}
	n.URL = "unix://" + filepath.Join(n.dir, "docker.sock")
	n.API = Docker(t, n.URL)
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	n.machine = exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--net", "--uts", "--mount", "--pid", "--fork",
		"--kill-child", "sh", "-c", first, "sh", n.Name)
	lifeline, err := n.machine.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := n.machine.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.machine.Start(); err != nil {
		return nil, err
	}
	n.lifeline = lifeline
	if n.init, err = bufio.NewReader(said).ReadString('\n'); err != nil {
		return n, fmt.Errorf("a namespace: %w", err)
	}
	n.init = strings.TrimSpace(n.init)
	inside := []string{"nsenter", "--target", n.init, "--net", "ip"}
	return n, run(t.Context(),
		[]string{"ip", "link", "add", n.cable, "type", "veth", "peer", "name", "eth0", "netns", n.init},
		[]string{"ip", "link", "set", n.cable, "master", s.bridge(), "up"},
		append(inside, "addr", "add", n.Address+"/24", "dev", "eth0"),
		append(inside, "link", "set", "eth0", "up"),
		append(inside, "link", "set", "lo", "up"),
	)
}

// Runs reports whether the daemon was started and has not ended.
func (n *SwarmNode) Runs() bool {
	if n.daemon == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// StartDaemon returns when it answers. A swarm takes a moment longer to know.
func (n *SwarmNode) StartDaemon(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "dockerd.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	for _, pid := range []string{"docker.pid", "exec/containerd/containerd.pid"} { // of processes that are gone
		if err := os.Remove(filepath.Join(n.dir, pid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	n.daemon = exec.CommandContext(context.WithoutCancel(t.Context()), "nsenter", "--target", n.init, "--net", "--mount", "--uts", "--pid",
		"dockerd", "--host="+n.URL, "--host=unix:///run/docker.sock", "--data-root="+filepath.Join(n.dir, "data"), "--exec-root="+filepath.Join(n.dir, "exec"),
		"--pidfile="+filepath.Join(n.dir, "docker.pid"), "--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent="+n.cgroup,
		"--insecure-registry=198.18.0.0/15") // the networks of swarms, see address
	n.daemon.Stdout, n.daemon.Stderr = log, log
	if err := n.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	exited, daemon := make(chan struct{}), n.daemon
	n.exited = exited
	go func() {
		_ = daemon.Wait() // it is told to end, one way or the other
		close(exited)
	}()
	Eventually(t, SwarmWithin, func() error {
		_, err := n.API.Ping(t.Context(), client.PingOptions{})
		return err
	})
}

// KillDaemon kills the daemon by SIGKILL. Its containers run on, until it is
// started again.
func (n *SwarmNode) KillDaemon(t testing.TB) {
	t.Helper()
	n.inside(t, `kill -KILL "$(cat "$1")"`, filepath.Join(n.dir, "docker.pid"))
	<-n.exited
}

// PowerOff kills the daemon and all its containers at once by SIGKILL, as a
// machine does that loses its power. StartDaemon has it come back.
func (n *SwarmNode) PowerOff(t testing.TB) {
	t.Helper()
	n.inside(t, "kill -KILL -1")
	<-n.exited
}

// inside runs a script with the processes and files of the machine.
func (n *SwarmNode) inside(t testing.TB, script string, args ...string) {
	t.Helper()
	command := append([]string{"nsenter", "--target", n.init, "--mount", "--pid", "sh", "-c", script, "sh"}, args...)
	if err := run(t.Context(), command); err != nil {
		t.Fatalf("on %s: %v", n.Name, err)
	}
}

// Cut pulls the cable out: no packet leaves or reaches the node or its
// containers, and no connection ends by that. URL and API lead there still.
func (n *SwarmNode) Cut(t testing.TB) {
	t.Helper()
	n.link(t, "down")
}

// Mend puts the cable back.
func (n *SwarmNode) Mend(t testing.TB) {
	t.Helper()
	n.link(t, "up")
}

func (n *SwarmNode) link(t testing.TB, state string) {
	t.Helper()
	if err := run(t.Context(), []string{"ip", "link", "set", n.cable, state}); err != nil {
		t.Fatalf("the cable of %s: %v", n.Name, err)
	}
}

// end ends all that runs on the machine, and returns when it has.
func (n *SwarmNode) end() {
	_ = n.lifeline.Close()
	_ = n.machine.Wait()
	if n.daemon != nil {
		<-n.exited
	}
}

// lastWords are the end of the daemon's log.
func (n *SwarmNode) lastWords() string {
	const most = 8 << 10
	log, err := os.ReadFile(filepath.Join(n.dir, "dockerd.log"))
	if err != nil {
		return ""
	}
	if len(log) > most {
		log = log[len(log)-most:]
		_, log, _ = bytes.Cut(log, []byte("\n"))
	}
	return string(log)
}

// run runs commands one after the other, up to the first that fails.
func run(ctx context.Context, commands ...[]string) error {
	for _, command := range commands {
		said, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(said))
		}
	}
	return nil
}
