package docker_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// waits are the containers that wait on a Docker engine for builds of an instance.
func waits(t testing.TB, api *client.Client, instance string) []container.Summary {
	t.Helper()
	found, err := api.ContainerList(t.Context(), client.ContainerListOptions{
		Filters: client.Filters{}.Add("label", "forge.instance="+instance, "forge.waiting"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found.Items, func(c container.Summary) bool { return !strings.HasPrefix(c.Names[0], "/forge_waiting_") })
}

// waiting is the one that waits.
func (r *rig) waiting(t testing.TB) container.Summary {
	t.Helper()
	var found []container.Summary
	kittest.Eventually(t, soon, func() error {
		if found = waits(t, r.api, r.config.Instance); len(found) != 1 {
			return fmt.Errorf("%d containers wait, want one", len(found))
		}
		return nil
	})
	return found[0]
}

// dialled is that a forgexec has come.
func (r *rig) dialled(t testing.TB) {
	t.Helper()
	conn, err := r.socket.Accept()
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestBuildTakesAContainerThatWaits(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t, "USER 4711:4711")
	first := r.spec(image)
	r.start(t, first)
	ready := r.waiting(t)
	if listed, err := r.List(t.Context()); err != nil || len(listed) != 1 || listed[0].Attempt != first.Attempt {
		t.Errorf("what waits is listed as a build's: %v, %v", listed, err)
	}
	if out, _ := r.run(t, ready.ID, "tr '\\0' '\\n' </proc/1/environ; ls -A /forge; id -u"); strings.Contains(out, first.Runner.Token) || !strings.HasSuffix(out, "4711\n") {
		t.Errorf("what waits has a token, or another user: %s", out)
	}

	second := r.spec(image)
	second.Runner.Token = "second"
	name := r.start(t, second)
	if taken := r.inspect(t, name); taken.ID != ready.ID {
		t.Error("the build got another container than the one that waited")
	}
	if out, _ := r.run(t, name, "tr '\\0' '\\n' </proc/1/environ"); strings.Contains(out, "second") {
		t.Errorf("the token is in the container's environment: %s", out)
	}
	if err := r.Start(t.Context(), second); err != nil { // asked again, it changes nothing
		t.Error(err)
	}
	if again := r.inspect(t, name); again.ID != ready.ID {
		t.Error("asked again, it started another")
	}
	next := r.waiting(t)
	if next.ID == ready.ID {
		t.Error("what is used waits once more")
	}
	if err := r.Stop(t.Context(), second.Attempt); err != nil {
		t.Error(err)
	}
	if left := r.left(t.Context(), t); strings.Contains(left, second.Attempt) || strings.Contains(left, ready.Labels["forge.waiting"]) {
		t.Errorf("left behind: %s", left)
	}
	if err := r.Stop(t.Context(), first.Attempt); err != nil {
		t.Error(err)
	}
}

// What differs from all that waits in anything gets a container of its own.
func TestWhatFitsNoContainerThatWaitsGetsItsOwn(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image, other := r.image(t), r.image(t)
	r.start(t, r.spec(image))
	ready := r.waiting(t)
	for what, change := range map[string]func(*engine.Spec){
		"another image":     func(s *engine.Spec) { s.Image = other },
		"more memory":       func(s *engine.Spec) { s.Memory = 64 << 20 },
		"a CPU":             func(s *engine.Spec) { s.CPUs = 1 },
		"shared memory":     func(s *engine.Spec) { s.SharedMemory = 32 << 20 },
		"a port":            func(s *engine.Spec) { s.Ports = []engine.Port{{Container: 80, Host: uint16(kittest.FreePort(t))}} },
		"another scheduler": func(s *engine.Spec) { s.Runner.CA = "other" },
		"a volume":          func(s *engine.Spec) { s.Volumes = []engine.Volume{{Source: t.TempDir(), Target: "/data"}} },
		"a platform":        func(s *engine.Spec) { s.Platform = "linux/" + runtime.GOARCH },
	} {
		spec := r.spec(image)
		change(&spec)
		if got := r.inspect(t, r.start(t, spec)); got.ID == ready.ID {
			t.Errorf("%s: it took what waits for others", what)
		}
	}
}

// One that ended while it waited, and one whose Forge was killed, is no harm.
func TestContainerThatEndedWhileItWaitedIsNotUsed(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t)
	r.start(t, r.spec(image))
	ready := r.waiting(t)
	if _, err := r.api.ContainerKill(t.Context(), ready.ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	spec := r.spec(image)
	name := r.start(t, spec)
	if got := r.inspect(t, name); got.ID == ready.ID || !got.State.Running {
		t.Errorf("%+v", got.State)
	}
	if _, err := r.api.ContainerInspect(t.Context(), ready.ID, client.ContainerInspectOptions{}); err == nil {
		t.Error("what ended is still there")
	}
}

// What a Forge that was killed has left waiting goes when the next begins; what a
// build had taken stays that build's.
func TestNextForgeRemovesWhatWaits(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t)
	r.start(t, r.spec(image))
	r.waiting(t)
	taken := r.spec(image)
	id := r.inspect(t, r.start(t, taken)).ID
	left := r.waiting(t)

	config := r.config
	config.Waiting, config.Alone = 2, true
	next, err := docker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	}()
	kittest.Eventually(t, soon, func() error {
		if slices.ContainsFunc(waits(t, r.api, config.Instance), func(c container.Summary) bool { return c.ID == left.ID }) {
			return errors.New("what waited for the Forge before is still there")
		}
		return nil
	})
	if listed, err := next.List(t.Context()); err != nil || !slices.ContainsFunc(listed, func(c engine.Container) bool { return c.Attempt == taken.Attempt && c.Running }) {
		t.Errorf("a build that took what waited: %v, %v", listed, err)
	}
	if got := r.inspect(t, "forge-"+taken.Attempt).ID; got != id {
		t.Error("the build's container is another")
	}
}

// Forge is killed, or the Docker engine hangs up, at each step of taking: the next
// Start goes on, and the attempt has one container in the end.
func TestTakingGoesOnWhereItWasInterrupted(t *testing.T) {
	for _, c := range []struct {
		step  string
		after bool
	}{{"/containers/id/rename", false}, {"/containers/id/rename", true}, {"/containers/id/json", false}, {"/containers/id/attach", false}} {
		t.Run(fmt.Sprintf("%s/%v", c.step, c.after), func(t *testing.T) {
			wire := newCutter(t, c.after)
			r := newRig(t, docker.Config{Host: wire.host(), Waiting: 1})
			image := r.image(t)
			r.start(t, r.spec(image))
			r.waiting(t)
			r.dialled(t)

			spec := r.spec(image)
			wire.cut.Store(c.step)
			err := r.Start(t.Context(), spec)
			wire.cut.Store("")
			if err != nil {
				err = r.Start(t.Context(), spec)
			}
			if err != nil {
				t.Fatal(err)
			}
			r.dialled(t) // whichever it is, it got a token
			found, err := r.api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("name", "^/forge-"+spec.Attempt)})
			if err != nil || len(found.Items) != 1 || found.Items[0].State != container.StateRunning {
				t.Errorf("the attempt has %v, %v", found.Items, err)
			}
			if err := r.Stop(t.Context(), spec.Attempt); err != nil {
				t.Error(err)
			}
		})
	}
}

// Forge was killed after the container had its name, and before it had its token.
func TestStartOfWhatHasANameAndNoTokenGivesIt(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t)
	r.start(t, r.spec(image))
	r.dialled(t)
	ready := r.waiting(t)
	spec := r.spec(image)
	if _, err := r.api.ContainerRename(t.Context(), ready.ID, client.ContainerRenameOptions{NewName: "forge-" + spec.Attempt}); err != nil {
		t.Fatal(err)
	}
	if got := r.inspect(t, r.start(t, spec)); got.ID != ready.ID {
		t.Error("another container was made")
	}
	r.dialled(t)
}

// What an image says of forgexec's own variables, and of how programs are loaded, does
// not reach the forgexec that waits, nor one that was given a token at once.
func TestImageCannotTamperWithWhatWaits(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t, "ENV FORGE_RUNNER_URL=unix:///evil FORGE_RUNNER_TOKEN=evil FORGE_RUNNER_WAITS=1 FORGE_RUNNER_CA=evil LD_PRELOAD=/evil.so GODEBUG=evil=1",
		`ENTRYPOINT ["/bin/evil"]`, `HEALTHCHECK --interval=1s CMD touch /evil`)
	first := r.spec(image)
	r.start(t, first)
	r.dialled(t) // with its own token, at once
	ready := r.waiting(t)
	if out, _ := r.run(t, ready.ID, "ls /evil; ps -o args | grep -v -e ps -e grep -e 'sh -c'"); !strings.Contains(out, "forgexec") || strings.Contains(out, "/bin/evil") {
		t.Errorf("beside forgexec there is: %s", out)
	}
	spec := r.spec(image)
	name := r.start(t, spec)
	r.dialled(t) // Forge's socket, not the image's
	if r.inspect(t, name).ID != ready.ID {
		t.Error("what waited was not taken")
	}
}
