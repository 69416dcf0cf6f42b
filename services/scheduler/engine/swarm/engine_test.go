package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

// One swarm serves all of these, since it costs seconds.
func TestASwarmOfOneMachine(t *testing.T) {
	s := kittest.NewSwarm(t, 1, 0)
	image := forgexecImage(t, s, builtForgexec(t))
	for _, test := range []struct {
		name string
		run  func(*testing.T, *kittest.Swarm, string)
	}{
		{"ABuildIsConfinedAndLimited", aBuildIsConfinedAndLimited},
		{"ServicesAreReadyFirst", servicesAreReadyFirst},
		{"AServiceThatDiesIsSaid", aServiceThatDiesIsSaid},
		{"WhatCanNeverStartSaysWhy", whatCanNeverStartSaysWhy},
		{"AnImageThatCannotBePulledSaysWhy", anImageThatCannotBePulledSaysWhy},
		{"ARepositorysLoginPullsItsImagesForItsBuildsAlone", aRepositorysLoginPullsItsImagesForItsBuildsAlone},
		{"WhatWaitsSaysWhatFor", whatWaitsSaysWhatFor},
		{"StartCanBeBrokenOff", startCanBeBrokenOff},
		{"WhatIsMadeWhileItsNetworkGoesIsStopped", whatIsMadeWhileItsNetworkGoesIsStopped},
		{"StartGoesOnWhereItWasInterrupted", startGoesOnWhereItWasInterrupted},
		{"StopGoesOnWhereItWasInterrupted", stopGoesOnWhereItWasInterrupted},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, image) })
	}
}

func aBuildIsConfinedAndLimited(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image, Pids: 123, User: "1234:5678", ReadOnly: true, Environment: map[string]string{"MIRROR": "a,b"}})
	spec := r.spec(s.Image(t, "HEALTHCHECK --interval=1s --retries=1 CMD false"))
	spec.Platform = "linux/" + runtime.GOARCH
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	c := r.container(t, spec.Attempt, "")
	h := c.HostConfig
	if h.Memory != 64<<20 || h.NanoCPUs != 100_000_000 || *h.PidsLimit != 123 || !h.ReadonlyRootfs || len(h.CapDrop) != 1 || !strings.HasSuffix(h.CapDrop[0], "NET_RAW") || h.Privileged {
		t.Errorf("limits and rights: %+v", h)
	}
	if c.Config.User != "1234:5678" || !strings.HasPrefix(c.Path, "/forge/runner/forgexec-") || !slices.Contains(c.Config.Env, "MIRROR=a,b") {
		t.Errorf("user %s runs %s with %v", c.Config.User, c.Path, c.Config.Env)
	}
	if c.State.Health != nil {
		t.Errorf("the image's health check counts: %+v", c.State.Health)
	}
	for _, m := range c.Mounts {
		if m.Destination == "/forge/runner" && m.RW {
			t.Error("a build may write to the folder of forgexec")
		}
	}
}

func servicesAreReadyFirst(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image})
	spec := r.spec(s.Image(t))
	spec.Sidecars = []engine.Sidecar{
		{Name: "checked", Image: s.Image(t, "HEALTHCHECK --interval=1h CMD test -f /tmp/ready", `CMD ["sh", "-c", "sleep 1; touch /tmp/ready; sleep 1000"]`)},
		{
			Name: "store", Image: s.Image(t, `ENTRYPOINT ["false"]`), Entrypoint: []string{"sh", "-c"}, Command: []string{"exec nc -ll -p 9000 -e echo hello"},
			Environment: map[string]string{"GREETING": "a b"}, Ready: engine.Ready{Port: 9000, Within: time.Minute},
		},
	}
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"checked", "store"} {
		if !strings.Contains(r.log(), "service "+name+" ("+spec.Sidecars[0].Image+") is ready after ") && !strings.Contains(r.log(), "service "+name+" ("+spec.Sidecars[1].Image+") is ready after ") {
			t.Errorf("the log does not say that %s is ready: %s", name, r.log())
		}
	}
	if c := r.container(t, spec.Attempt, "checked"); c.State.Health == nil || c.State.Health.Status != "healthy" {
		t.Errorf("its health was not waited for: %+v", c.State.Health)
	}
	store := r.container(t, spec.Attempt, "store")
	if env := strings.Join(store.Config.Env, " "); strings.Contains(env, "FORGE_") || !strings.Contains(env, "GREETING=a b") {
		t.Errorf("the service is told %s", env)
	}
	if env := r.container(t, spec.Attempt, "").Config.Env; !slices.Contains(env, "FORGE_RUNNER_AWAIT=store=store:9000/1m0s") {
		t.Errorf("forgexec is told %v", env)
	}
	// To the scheduler it is one container.
	if listed, err := r.List(t.Context()); err != nil || len(listed) != 1 || !listed[0].Running || listed[0].Machine != s.Nodes[0].Name {
		t.Errorf("list: %+v, %v", listed, err)
	}
}

func aServiceThatDiesIsSaid(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image, ReadyWithin: 2 * time.Second})
	for _, c := range []struct{ change, want, log string }{
		{`CMD ["sh", "-c", "echo no disk for me; exit 3"]`, "ended with exit code 3 before it was ready; its last lines are in the log", "db | no disk for me"},
		{`HEALTHCHECK --interval=1s --retries=1 CMD false`, "healthy", ""},
		{`CMD ["/no/such/program"]`, `the container cannot be started: `, ""},
	} {
		r.said = nil
		spec := r.spec(s.Image(t))
		spec.Sidecars = []engine.Sidecar{{Name: "db", Image: s.Image(t, `CMD ["sleep", "1000"]`, c.change)}}
		if strings.HasPrefix(c.change, "CMD") { // it must neither be ready nor too late before it ends
			spec.Sidecars[0].Ready = engine.Ready{Run: "false", Within: time.Hour}
		}
		err := r.Start(t.Context(), spec)
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "service db: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.change, err, c.want)
		}
		if !strings.Contains(r.log(), c.log) {
			t.Errorf("%s: the log says %q, want %q", c.change, r.log(), c.log)
		}
		// What is there of it is found, and goes.
		if listed, err := r.List(t.Context()); err != nil || len(listed) != 1 || listed[0].Running {
			t.Errorf("list: %+v, %v", listed, err)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
}

// otherPlatform is one that this machine is not.
func otherPlatform() string {
	if runtime.GOARCH == "arm64" {
		return "linux/amd64"
	}
	return "linux/arm64"
}

// whatCanNeverStartSaysWhy holds the texts that people read.
func whatCanNeverStartSaysWhy(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image})
	for _, c := range []struct {
		name   string
		change func(*engine.Spec)
		want   string
	}{
		{"no image's name", func(s *engine.Spec) { s.Image = "No Such Image" }, `image "No Such Image" is not a name of an image`},
		{"too large", func(s *engine.Spec) { s.Memory = 1 << 40 }, "it asks for 1TiB; the largest machine has "},
		{"too many cores", func(s *engine.Spec) { s.CPUs = 1000 }, "it asks for 1000 CPUs; the largest machine has "},
		{"no such volume", func(s *engine.Spec) { s.Volumes = []engine.Volume{{Source: "/no/such", Target: "/x"}} }, "the container cannot be started: invalid mount config for type \"bind\": bind source path does not exist: /no/such"},
		{"privileged", func(s *engine.Spec) { s.Privileged = true }, "it asks for privileged containers, which a swarm does not run"},
		{"another platform", func(s *engine.Spec) { s.Platform = otherPlatform() }, "it asks for platform " + otherPlatform() + "; the machines of the swarm are linux/" + runtime.GOARCH},
		{"a socket", func(s *engine.Spec) { s.Runner.URL = "unix:///run/forge.sock" }, "FORGE_RUNNER_ADDRESS must be host:port"},
	} {
		spec := r.spec(s.Image(t))
		c.change(&spec)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := r.Start(ctx, spec)
		cancel()
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
}

func whatWaitsSaysWhatFor(t *testing.T, s *kittest.Swarm, image string) {
	for _, c := range []struct {
		name   string
		config swarmengine.Config
		change func(*engine.Spec)
		want   string
	}{
		{"constraints", swarmengine.Config{Constraints: []string{"node.labels.builds==true"}}, func(*engine.Spec) {}, "no machine that has forgexec meets node.labels.builds==true (1 machine)"},
		{"forks", swarmengine.Config{ForkConstraints: []string{"node.role==worker"}}, func(s *engine.Spec) { s.Fork = true }, "meets node.role==worker (1 machine)"},
		{"a registry away", swarmengine.Config{}, func(s *engine.Spec) { s.Image = "registry.invalid/octo/tools:1" }, "image registry.invalid/octo/tools:1 is not pulled yet: registry.invalid does not answer as a registry should: "},
		{"room", swarmengine.Config{Constraints: []string{"node.role==manager"}}, func(s *engine.Spec) { s.CPUs = 500 }, "no machine has 500 CPUs and 64MiB free (1 machine)"},
	} {
		c.config.Image = image
		r := newRig(t, s, c.config)
		spec := r.spec(s.Image(t))
		c.change(&spec)
		told := &kittest.Logbook{}
		spec.Waits = func(_ engine.Wait, text string) { fmt.Fprintln(told, text) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Start(ctx, spec) }()
		kittest.Eventually(t, time.Minute, func() error {
			if log := r.log(); !strings.Contains(log+told.String(), c.want) || !strings.Contains(log, "waits: ") {
				return fmt.Errorf("%s: said %q, and of waits %q, want %q", c.name, log, told, c.want)
			}
			return nil
		})
		cancel()
		err := <-ended
		broken, _ := errors.AsType[*engine.WaitError](err)
		if broken == nil {
			t.Fatalf("%s: got %v", c.name, err)
		}
		if broken.Reason == "" || fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", c.name, err)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
}

func startCanBeBrokenOff(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image, Constraints: []string{"node.labels.never==true"}})
	spec := r.spec(s.Image(t))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx, spec) }()
	kittest.Eventually(t, time.Minute, func() error {
		if !strings.Contains(r.log(), "waits: ") {
			return errors.New("it does not wait")
		}
		return nil
	})
	cancel()
	begin := time.Now()
	if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(begin) > time.Minute {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
	if left := left(t.Context(), t, r.api, r.config.Instance); left != "" {
		t.Errorf("left: %s", left)
	}
}
