package wire_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// dockerDaemon is a Docker daemon of this test alone, which may be killed. It has
// a network of its own: two daemons in one would take each other's bridge away.
// What it mounts goes with it.
type dockerDaemon struct {
	dir    string
	output *tail
	cmd    *exec.Cmd
	exited chan struct{}
}

func newDockerDaemon(t *testing.T) *dockerDaemon { return newDockerDaemonOn(t, "") }

// newDockerDaemonOn has a daemon keep all in a disk of that size, in tmpfs's words.
func newDockerDaemonOn(t *testing.T, size string) *dockerDaemon {
	t.Helper()
	kittest.Require(t, "dockerd")
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerDaemon{dir: dir, output: &tail{}}
	t.Cleanup(func() {
		d.signal(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("dockerd said:\n%s", d.output)
		}
		if size != "" {
			_ = syscall.Unmount(d.data(), 0) // else it is not empty
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if size != "" {
		if err := errors.Join(os.Mkdir(d.data(), 0o700), syscall.Mount("tmpfs", d.data(), "tmpfs", 0, "size="+size)); err != nil {
			t.Fatal(err)
		}
	}
	d.start(t)
	return d
}

func (d *dockerDaemon) host() string { return "unix://" + filepath.Join(d.dir, "docker.sock") }

func (d *dockerDaemon) data() string { return filepath.Join(d.dir, "data") }

// free is how many bytes its disk still takes.
func (d *dockerDaemon) free(t *testing.T) int64 {
	t.Helper()
	var disk syscall.Statfs_t
	if err := syscall.Statfs(d.data(), &disk); err != nil {
		t.Fatal(err)
	}
	return int64(disk.Bavail) * disk.Bsize
}

// start returns when it answers.
func (d *dockerDaemon) start(t *testing.T) {
	t.Helper()
	// containerd has died with the daemon. Where nobody reaps orphans, the next daemon takes what is left of it for alive.
	if err := os.Remove(filepath.Join(d.dir, "exec", "containerd", "containerd.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	d.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--net", "--mount", "dockerd", "--host="+d.host(),
		"--data-root="+d.data(), "--exec-root="+filepath.Join(d.dir, "exec"), "--pidfile="+filepath.Join(d.dir, "pid"))
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.cmd.Wait() // it is told to end, one way or the other
		close(d.exited)
	}()
	api := kittest.Docker(t, d.host())
	kittest.Eventually(t, dockerPatience, func() error {
		_, err := api.Ping(t.Context(), client.PingOptions{})
		return err
	})
}

// signal returns when the daemon is gone.
func (d *dockerDaemon) signal(s syscall.Signal) {
	_ = d.cmd.Process.Signal(s)
	<-d.exited
}

// A daemon that comes back ends what it finds running: 137, which is not the
// commands' fault, and nothing that a test could not do once more.
func TestSIGKILLOfTheDockerDaemonIsNotTheCommandsFault(t *testing.T) {
	daemon := newDockerDaemon(t)
	w := newDockerWorld(t, daemon.host(), func(image string) map[string]string {
		return map[string]string{".forge.yml": lines("image: "+image, "execute: ['echo begun; until [ -e /tmp/go ]; do sleep 0.1; done']")}
	})
	_, head := w.propose(t, "change", files("file", "x"))
	build := w.newest(t)
	w.begins(t, build)
	daemon.signal(syscall.SIGKILL)
	daemon.start(t)
	w.running(t, build.GetId(), 2)
	w.begins(t, build)
	w.let(t, build.GetId(), 2)
	w.shows(t, head, "forge/test", "success")
	if log := w.attemptLog(t, build.GetId(), 1); strings.Count(log, "begun") != 1 {
		t.Errorf("the first attempt printed %q", log)
	}
	w.cleared(t, build.GetId())
}
