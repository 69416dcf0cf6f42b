package wire_test

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// openShell is forge shell as it runs.
type openShell struct {
	cmd   *exec.Cmd
	typed io.WriteCloser
	said  *tail // what it printed, and why it ended
	ended chan struct{}
}

// opensShell runs a command in a kept container, as the admin of this Forge would, and
// types into it.
func (s *server) opensShell(t *testing.T, build string, command ...string) *openShell {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	o := &openShell{cmd: exec.Command(filepath.Join(binDir, "forge"), append([]string{"shell", build, "--"}, command...)...), said: &tail{}, ended: make(chan struct{})}
	o.cmd.Dir = s.dir
	o.cmd.Env = []string{"FORGE_GRPC_ADDRESS=" + s.grpc, "FORGE_ADMIN_TOKEN=" + adminToken, "TZ=UTC"}
	o.cmd.Stdout, o.cmd.Stderr = o.said, o.said
	typed, err := o.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.typed = typed
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = o.cmd.Wait() // the exit code is looked at
		close(o.ended)
	}()
	t.Cleanup(func() {
		_ = o.cmd.Process.Kill() // it may have ended
		<-o.ended
	})
	return o
}

// says waits until it has printed a text.
func (o *openShell) says(t *testing.T, text string) {
	t.Helper()
	kittest.Eventually(t, dockerPatience, func() error {
		if said := o.said.String(); !strings.Contains(said, text) {
			return fmt.Errorf("%q is not in %q", text, said)
		}
		return nil
	})
}

// isLost is that it ends since Forge is gone, and says so.
func (o *openShell) isLost(t *testing.T, build string) {
	t.Helper()
	select {
	case <-o.ended:
	case <-time.After(dockerPatience):
		t.Fatalf("it goes on: %q", o.said)
	}
	said := o.said.String()
	for _, text := range []string{"forge: the shell is lost: ", "; the container is kept until ", "and forge shell " + build + " opens another shell in it\n"} {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in %q", text, said)
		}
	}
	if code := o.cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit code %d: %q", code, said)
	}
}

// Forge is killed while somebody has a shell open: the person is told, what ran there is
// gone, the container is there until its time, and no longer, even where Forge is not.
func TestSIGKILLOfForgeLeavesNoShellAndNoKeptContainer(t *testing.T) {
	t.Parallel()
	kittest.Require(t, "docker")
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{".forge.yml": lines("image: "+image, "execute: ['echo half done >left; exit 3']")}
	}, "--keep=45s")
	_, head := w.propose(t, "change", files("file", "x"))
	w.shows(t, head, "forge/test", "failure")
	build := w.newest(t)
	const heedless = `trap '' HUP; echo $$ >pid; cat left; while read -r line; do echo "<$line>"; done; while :; do sleep 1; done`
	first := w.opensShell(t, build.GetId(), "sh", "-c", heedless)
	first.says(t, "half done\n")
	if _, err := io.WriteString(first.typed, "typed\n"); err != nil {
		t.Fatal(err)
	}
	first.says(t, "<typed>\n")

	w.process("forge").kill()
	first.isLost(t, build.GetId())
	w.process("forge").begin(t)
	w.awaitUp(t)
	w.running(t, build.GetId(), 1)
	w.says(t, "half done\n", "shell", build.GetId(), "--", "sh", "-c", "while kill -0 $(cat pid) 2>/dev/null; do sleep 0.1; done; cat left")

	second := w.opensShell(t, build.GetId(), "sh", "-c", heedless)
	second.says(t, "half done\n")
	w.process("forge").kill()
	second.isLost(t, build.GetId())
	kittest.Eventually(t, dockerPatience, func() error { // by itself: Forge is away
		found, err := w.api.ContainerInspect(t.Context(), fmt.Sprintf("forge-%s-1", build.GetId()), client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) || err == nil && !found.Container.State.Running {
			return nil
		}
		return errors.Join(err, errors.New("it runs"))
	})
	if early := time.Until(build.GetKeptUntilTime().AsTime()); early > 2*time.Second {
		t.Errorf("the container ended %v before its time", early)
	}
	w.process("forge").begin(t)
	w.awaitUp(t)
	w.cleared(t, build.GetId())
	if out, err := w.verb(t, "shell", build.GetId(), "--", "true"); err == nil || !strings.Contains(out, "is not kept: it was until") {
		t.Errorf("a shell after its time: %v, %s", err, out)
	}
	kittest.Eventually(t, dockerPatience, func() error {
		log, err := w.verb(t, "audit")
		if err != nil {
			return err
		}
		lost := strings.Count(log, "who has opened it is not heard of any more")
		if opened, closed := strings.Count(log, "open shell"), strings.Count(log, "close shell"); opened != 3 || closed != 3 || lost != 2 {
			return fmt.Errorf("the audit log has %d that were opened, %d that were closed, %d of those whom nobody has:\n%s", opened, closed, lost, log)
		}
		return nil
	})
}
