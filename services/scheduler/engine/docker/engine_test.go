package docker_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestForgexecReachesTheRunnerAsTheUserOfTheImage(t *testing.T) {
	for _, user := range []string{"root", "builder"} {
		t.Run(user, func(t *testing.T) {
			r := newRig(t, docker.Config{}) // with a socket of its own, where no other forgexec calls again
			spec := r.spec(r.image(t, "USER "+user))
			name := r.start(t, spec)
			conn, err := r.socket.Accept()
			if err != nil {
				t.Fatal(err)
			}
			preface := make([]byte, len("PRI * HTTP/2.0"))
			if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != "PRI * HTTP/2.0" {
				t.Errorf("as %s: got %q, %v", user, preface, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if out, code := r.run(t, name, "whoami && touch /forge/workspace/file && cat /proc/1/comm"); out != user+"\nforgexec\n" || code != 0 {
				t.Errorf("as %s: exit %d, %q", user, code, out)
			}
			if err := r.Stop(t.Context(), spec.Attempt); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestContainerHasNoMoreThanItNeeds(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t, "HEALTHCHECK CMD false"))
	spec.CPUs, spec.Memory = 0.5, 64<<20
	name := r.start(t, spec)
	c := r.inspect(t, name)
	if len(c.Mounts) != 1 || c.Mounts[0].Source != filepath.Dir(r.socket.Addr().String()) || c.Mounts[0].RW {
		t.Errorf("mounts: %+v", c.Mounts)
	}
	if h := c.HostConfig; h.NanoCPUs != 5e8 || h.Memory != 64<<20 || h.MemorySwap != 64<<20 || *h.PidsLimit != 4096 || h.Privileged || h.AutoRemove {
		t.Errorf("limits: %+v", h.Resources)
	}
	for label, want := range map[string]string{
		"forge.attempt": spec.Attempt, "forge.build": "b1", "forge.repository": "octo/cat", "forge.action": "execute",
	} {
		if got := c.Config.Labels[label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	for script, want := range map[string]string{
		"grep NoNewPrivs /proc/self/status": "NoNewPrivs:\t1\n",
		// Docker's default capabilities are a80425fb; NET_RAW is bit 13.
		"grep CapBnd /proc/self/status": "CapBnd:\t00000000a80405fb\n",
		// forgexec makes its workspace first of all.
		"until [ -e /forge/workspace ]; do sleep 0.1; done; ls /var/run/docker.sock 2>/dev/null; echo /forge/*": "/forge/runner /forge/workspace\n",
		"touch /forge/runner/x 2>/dev/null || echo never":                                                       "never\n",
		"echo ${FORGE_DATA_DIR-nothing of Forge}":                                                               "nothing of Forge\n",
	} {
		if got, _ := r.run(t, name, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if health := c.Config.Healthcheck; health == nil || !slices.Equal(health.Test, []string{"NONE"}) {
		t.Errorf("the image's health check is on: %+v", health)
	}
}

func TestBuildReachesNoOtherContainer(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	server, other := r.start(t, r.spec(image)), r.start(t, r.spec(image))
	if out, code := r.run(t, server, "setsid nc -ll -p 8000 -e echo hello >/dev/null 2>&1 & until nc -w 1 127.0.0.1 8000; do :; done"); code != 0 {
		t.Fatalf("no server: exit %d, %q", code, out)
	}
	networks := r.inspect(t, server).NetworkSettings.Networks
	if len(networks) != 1 {
		t.Fatalf("networks: %+v", networks)
	}
	address := networks["forge-"+strings.TrimPrefix(server, "forge-")].IPAddress.String()
	reach := "nc -w 2 " + address + " 8000"
	if out, code := r.run(t, server, reach); code != 0 || !strings.Contains(out, "hello") {
		t.Errorf("its own address: exit %d, %q", code, out)
	}
	if out, code := r.run(t, other, reach); code == 0 {
		t.Errorf("another build's address answers: %q", out)
	}
}

func TestRunnerIsReachedInEveryWay(t *testing.T) {
	r := newRig(t, docker.Config{})
	socket := r.socket.Addr().String()
	fromContainer := r.config // a Forge that knows the socket by another path than Docker
	fromContainer.RunnerDir = filepath.Dir(socket)
	inContainer, err := docker.New(t.Context(), fromContainer)
	if err != nil {
		t.Fatal(err)
	}
	defer inContainer.Close()
	image := r.image(t)
	for _, c := range []struct {
		engine           *docker.Engine
		url, want, mount string
	}{
		{r.Engine, "unix://" + socket, "unix:///forge/runner/runner.sock", filepath.Dir(socket)},
		{inContainer, "unix:///nonexistent/runner.sock", "unix:///forge/runner/runner.sock", filepath.Dir(socket)},
		{r.Engine, "forge.example:9094", "forge.example:9094", ""},
	} {
		spec := r.spec(image)
		spec.Runner.URL = c.url
		if err := c.engine.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		found := r.inspect(t, "forge-"+spec.Attempt)
		if !slices.Contains(found.Config.Env, "FORGE_RUNNER_URL="+c.want) {
			t.Errorf("%s: no %s in %q", c.url, c.want, found.Config.Env)
		}
		var mounts []string
		for _, m := range found.Mounts {
			mounts = append(mounts, m.Source)
		}
		if got := strings.Join(mounts, " "); got != c.mount {
			t.Errorf("%s: mounts %q, want %q", c.url, got, c.mount)
		}
	}
}

func TestMemoryLimitIsSeenAsSuch(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t))
	spec.Memory = 48 << 20
	name := r.start(t, spec)
	if _, code := r.run(t, name, "tail /dev/zero"); code != 137 {
		t.Errorf("exit %d, want 137", code)
	}
	// Docker says so when the container has ended.
	if _, err := r.api.ContainerKill(t.Context(), name, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	if c := r.listed(t, func(c engine.Container) bool { return !c.Running }); c.Ending != engine.OutOfMemory {
		t.Errorf("got %+v", c)
	}
}

func TestDiskThatCannotBeBoundedIsRefused(t *testing.T) {
	r := newRig(t, docker.Config{Disk: "10GiB"})
	info, err := r.api.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Start(t.Context(), r.spec(r.image(t)))
	switch bounds := info.Info.Driver != "overlay2" || slices.Contains(info.Info.DriverStatus, [2]string{"Backing Filesystem", "xfs"}); {
	case bounds: // perhaps
		t.Logf("%s: %v", info.Info.Driver, err)
	case !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "FORGE_BUILD_DISK"):
		t.Errorf("got %v", err)
	}
}

func TestForkBombEndsAtItsLimit(t *testing.T) {
	r := newRig(t, docker.Config{Pids: 64})
	name := r.start(t, r.spec(r.image(t)))
	out, _ := r.run(t, name, "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; echo all")
	if !strings.Contains(out, "can't fork") || strings.Contains(out, "all") {
		t.Errorf("got %q", out)
	}
}

func TestEndedContainerIsListedUntilItIsStopped(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t, "VOLUME /cache"))
	name := r.start(t, spec)
	running := r.listed(t, func(c engine.Container) bool { return c.Running })
	if running.Attempt != spec.Attempt || running.Start.IsZero() || running.ExitCode != -1 {
		t.Errorf("running: %+v", running)
	}
	var volumes []string
	for _, mount := range r.inspect(t, name).Mounts {
		if mount.Name != "" {
			volumes = append(volumes, mount.Name)
		}
	}
	if len(volumes) != 1 {
		t.Fatalf("volumes: %q", volumes)
	}
	if _, err := r.api.ContainerKill(t.Context(), name, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	ended := r.listed(t, func(c engine.Container) bool { return !c.Running })
	if ended.ExitCode != 137 || ended.Ending != engine.EndingUnknown || !ended.Start.Equal(running.Start) {
		t.Errorf("ended: %+v", ended)
	}
	if err := r.Start(t.Context(), spec); err != nil { // it is not started again
		t.Error(err)
	}
	if c := r.listed(t, func(engine.Container) bool { return true }); c != ended {
		t.Errorf("after Start: %+v", c)
	}
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if left := r.left(t.Context(), t); left != "" {
		t.Errorf("left: %s", left)
	}
	if _, err := r.api.VolumeInspect(t.Context(), volumes[0], client.VolumeInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("the volume: %v", err)
	}
}

func TestForgesOnOneDockerEngineLeaveEachOtherAlone(t *testing.T) {
	one, two := newRig(t, docker.Config{}), newRig(t, docker.Config{})
	spec := one.spec(one.image(t))
	one.start(t, spec)
	if containers, err := two.List(t.Context()); err != nil || len(containers) != 0 {
		t.Errorf("the other sees %+v, %v", containers, err)
	}
	if err := two.Stop(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
	one.listed(t, func(c engine.Container) bool { return c.Running })
}

func TestSpecThatDockerCannotGiveIsInvalid(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	for _, c := range []struct {
		spec engine.Spec
		want string
	}{
		{engine.Spec{Image: image, CPUs: 5000}, "CPUs"},
		{engine.Spec{Image: image, Memory: 1}, "memory limit"},
		{engine.Spec{Image: r.image(t, "USER nobody-knows")}, "does not know whom its commands are to run as: unable to find user nobody-knows"},
		{engine.Spec{Image: r.image(t, "USER 1000:nobody-knows")}, "unable to find group nobody-knows"},
		{engine.Spec{Image: "No Such Image"}, `image "No Such Image" is not a name`},
		{engine.Spec{Image: ""}, "is not a name"},
		{engine.Spec{Image: image, Attempt: "../x"}, "attempt"},
	} {
		if c.spec.Attempt == "" {
			c.spec.Attempt = unique()
		}
		c.spec.Runner = r.spec("").Runner
		err := r.Start(t.Context(), c.spec)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "daemon") {
			t.Errorf("%+v: got %v, want %q", c.spec, err, c.want)
		}
		if !strings.Contains(c.spec.Attempt, "/") {
			if err := r.Stop(t.Context(), c.spec.Attempt); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDirectoryOfTheSocketMustHoldNothingElse(t *testing.T) {
	r := newRig(t, docker.Config{})
	secret := filepath.Join(filepath.Dir(r.socket.Addr().String()), "forge.db")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.Start(t.Context(), r.spec("any"))
	if err == nil || fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
}

func TestForgeWithoutANameOfItsOwnIsRefused(t *testing.T) {
	if _, err := docker.New(t.Context(), docker.Config{Forgexec: []string{forgexec(t)}}); err == nil || !strings.Contains(err.Error(), "instance") {
		t.Errorf("got %v", err)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	program := forgexec(t)
	text := filepath.Join(t.TempDir(), "forgexec")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	closed := "tcp://" + kittest.FreeAddress(t)
	for _, c := range []struct {
		config docker.Config
		want   string
	}{
		{docker.Config{Forgexec: []string{program}, Host: "unix:///nonexistent.sock"}, "the Docker engine at unix:///nonexistent.sock does not answer: " +
			"dial unix /nonexistent.sock: connect: no such file or directory; start it, set DOCKER_HOST, or choose FORGE_ENGINE=process"},
		{docker.Config{Forgexec: []string{program}, Host: closed}, "the Docker engine at " + closed + " does not answer: "},
		{docker.Config{Forgexec: []string{program}, Host: "docker.example"}, "docker.example"},
		{docker.Config{Forgexec: []string{program}, Pull: "sometimes"}, "choose missing or always"},
		{docker.Config{}, "no command line for forgexec"},
		{docker.Config{Forgexec: []string{"/nonexistent"}}, "/nonexistent"},
		{docker.Config{Forgexec: []string{text}}, "is no program for Linux"},
		{docker.Config{Forgexec: []string{"/bin/ls"}}, "is not static"},
	} {
		c.config.Instance = unique()
		engine, err := docker.New(t.Context(), c.config)
		if err == nil {
			err = engine.Close()
			t.Errorf("%+v: no error, Close: %v", c.config, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %q, want %q", err, c.want)
		}
	}
}
