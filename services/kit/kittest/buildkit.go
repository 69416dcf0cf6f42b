package kittest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildKitStartsWithin is how long a daemon may take on a busy machine.
const buildKitStartsWithin = 90 * time.Second

// BuildKit starts a BuildKit daemon of the test's own and returns its address.
func BuildKit(t testing.TB) string {
	t.Helper()
	Require(t, "buildkitd")
	dir, err := os.MkdirTemp("", "buildkitd-") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	address := "unix://" + filepath.Join(dir, "socket")
	StartBuildKit(t, dir, "--addr="+address)
	return address
}

// StartBuildKit starts a BuildKit daemon that keeps its things below dir, and returns once
// it serves. It ends with the test.
func StartBuildKit(t testing.TB, dir string, args ...string) {
	t.Helper()
	daemon := exec.CommandContext(context.WithoutCancel(t.Context()), "buildkitd", append(args, "--root="+filepath.Join(dir, "root"), "--oci-worker=true", "--containerd-worker=false", "--oci-worker-gc=false")...)
	said, err := daemon.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	runs := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		lines := bufio.NewScanner(said)
		for once := false; lines.Scan(); {
			if strings.Contains(lines.Text(), "running server on") && !once {
				once = true
				close(runs)
			}
		}
	})
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		all.Wait()
		_ = daemon.Wait()
	})
	select {
	case <-runs:
	case <-time.After(buildKitStartsWithin):
		t.Fatal("buildkitd does not start")
	}
}
