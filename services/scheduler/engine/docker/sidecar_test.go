package docker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestServicesAreReadyAndReachedByName(t *testing.T) {
	r := newRig(t, docker.Config{Pids: 512})
	const listens = "sleep 0.5; while :; do echo hello from $HOSTNAME $GREETING | nc -l -p 7000; done"
	spec := r.spec(r.image(t))
	spec.Memory = 64 << 20
	spec.Sidecars = []engine.Sidecar{
		// The second port is never listened at.
		{
			Name: "web", Image: r.image(t, "EXPOSE 7000 7001 53/udp", "USER builder", `CMD ["sh", "-c", "`+listens+`"]`),
			Environment: map[string]string{"GREETING": "and all"},
		},
		{Name: "checked", Image: r.image(t, "EXPOSE 9", "HEALTHCHECK --interval=1h CMD test -f /tmp/ready", `CMD ["sh", "-c", "sleep 1; touch /tmp/ready; sleep 1000"]`)},
		{Name: "plain", Image: r.image(t, `CMD ["sleep", "1000"]`)},
	}
	name := r.start(t, spec)
	if out, code := r.run(t, name, "nc web 7000"); code != 0 || out != "hello from web and all\n" {
		t.Errorf("web: exit %d, %q", code, out)
	}
	if out, code := r.run(t, name+"-checked", "test -f /tmp/ready && echo ready"); code != 0 {
		t.Errorf("checked: exit %d, %q: its health was not waited for", code, out)
	}
	for _, service := range []string{"web", "checked", "plain"} {
		c := r.inspect(t, name+"-"+service)
		if h := c.HostConfig; h.Memory != 64<<20 || *h.PidsLimit != 512 || len(h.SecurityOpt) != 1 || len(h.Mounts) != 0 {
			t.Errorf("%s: %+v", service, h)
		}
		if env := strings.Join(c.Config.Env, " "); strings.Contains(env, "FORGE_") {
			t.Errorf("%s is told %s", service, env)
		}
		if c.Config.Labels["forge.service"] != service || c.Config.Labels["forge.build"] != "b1" {
			t.Errorf("%s: labels %v", service, c.Config.Labels)
		}
		if !strings.Contains(r.log(), "service "+service+" ("+c.Config.Image+") is ready after ") {
			t.Errorf("%s: the log does not say that it is ready: %s", service, r.log())
		}
	}
	// To the scheduler it is one container.
	r.listed(t, func(c engine.Container) bool { return c.Running && c.Attempt == spec.Attempt })
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if left := r.left(t.Context(), t); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestServicesRunAndAreReadyAsTheFileSays(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t))
	fails := r.image(t, "EXPOSE 7000", "HEALTHCHECK --interval=1s CMD false", `ENTRYPOINT ["false"]`, `CMD ["of the image"]`)
	spec.Sidecars = []engine.Sidecar{
		{
			Name: "store", Image: fails, Entrypoint: []string{"sh", "-c"},
			Command: []string{"sleep 1; exec nc -ll -p 9000 -e echo hello"}, Ready: engine.Ready{Port: 9000},
		},
		{
			Name: "cache", Image: fails, Entrypoint: []string{"sh", "-c", `echo "$0 $1" >/tmp/arguments; sleep 1; touch /tmp/ready; sleep 1000`},
			Command: []string{"--requirepass", "a b"}, Ready: engine.Ready{Run: "test -f /tmp/ready && test $(id -u) = 0", Within: time.Minute},
		},
		{
			Name: "plain", Image: r.image(t, `ENTRYPOINT ["sleep"]`, `CMD ["0"]`), Command: []string{"1000"},
			Environment: map[string]string{"discovery.type": "single node", "1": "one"}, // no shell would pass them on
		},
	}
	name := r.start(t, spec)
	if out, code := r.run(t, name, "nc store 9000"); code != 0 || out != "hello\n" {
		t.Errorf("store: exit %d, %q", code, out)
	}
	for _, c := range [][3]string{
		{"cache", "cat /tmp/arguments; ls /tmp/ready", "--requirepass a b\n/tmp/ready\n"},
		{"plain", `tr '\0' '\n' </proc/1/environ | grep -E '^(discovery.type|1)=' | sort`, "1=one\ndiscovery.type=single node\n"},
	} {
		if out, code := r.run(t, name+"-"+c[0], c[1]); code != 0 || out != c[2] {
			t.Errorf("%s: %s: exit %d, %q, want %q", c[0], c[1], code, out, c[2])
		}
	}
}

func TestServiceIsWaitedForAsLongAsTheFileSays(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t, `CMD ["sleep", "1000"]`)
	for want, ready := range map[string]engine.Ready{
		"did not listen at port 9000 within 1s": {Port: 9000, Within: time.Second},
		"was not healthy within 1s":             {Run: "false", Within: time.Second},
	} {
		spec := r.spec(image)
		spec.Sidecars = []engine.Sidecar{{Name: "db", Image: image, Ready: ready}}
		if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", ready, err, want)
		}
	}
}

func TestServiceThatDoesNotGetReadyErrorsTheBuild(t *testing.T) {
	r := newRig(t, docker.Config{ReadyWithin: 3 * time.Second})
	for _, c := range []struct {
		name   string
		within time.Duration // the engine's, where it is 0
		want   []string
		log    string
		// of the image
		changes []string
	}{
		{
			"crashed", time.Hour,
			[]string{"ended with exit code 3 before it was ready", "its last lines are in the log"},
			"db | no disk for me\ndb | sorry",
			[]string{"EXPOSE 5432", `CMD ["sh", "-c", "echo no disk for me; echo sorry >&2; sleep 0.3; exit 3"]`},
		},
		{
			"deaf", 0,
			[]string{"did not listen at port 5432 within 3s"},
			"db | starting",
			[]string{"EXPOSE 5432", `CMD ["sh", "-c", "echo starting; sleep 1000"]`},
		},
		{
			"ill", 0,
			[]string{"was not healthy within 3s"},
			"",
			[]string{"HEALTHCHECK --interval=1h CMD false", `CMD ["sleep", "1000"]`},
		},
		{"not to be started", time.Hour, []string{"cannot be started", "/no/such/program"}, "", []string{`CMD ["/no/such/program"]`}},
	} {
		r.said = nil
		spec := r.spec(r.image(t))
		spec.Sidecars = []engine.Sidecar{{Name: "db", Image: r.image(t, c.changes...), Ready: engine.Ready{Within: c.within}}}
		err := r.Start(t.Context(), spec)
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "service db ("+spec.Sidecars[0].Image+") ") {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", c.name, err, want)
			}
		}
		for line := range strings.SplitSeq(c.log, "\n") { // Docker keeps no order between a program's two outputs
			if !strings.Contains(r.log(), line) {
				t.Errorf("%s: the log says %q, want %q", c.name, r.log(), line)
			}
		}
		// What is there of it is found, and goes.
		r.listed(t, func(c engine.Container) bool { return !c.Running && c.ExitCode == -1 && c.Attempt == spec.Attempt })
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Fatal(err)
		}
	}
	spec := r.spec(r.image(t))
	spec.Sidecars = []engine.Sidecar{{Name: "db", Image: "No Such Image"}}
	if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), `service db: image "No Such Image"`) {
		t.Errorf("got %v", err)
	}
	if left := r.left(t.Context(), t); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestStartWithServicesGoesOnWhereItWasInterrupted(t *testing.T) {
	for _, step := range []string{"/containers/create", "/containers/id/start", "/exec/id/start"} {
		t.Run(step, func(t *testing.T) {
			wire := newCutter(t, true)
			r := newRig(t, docker.Config{Host: wire.host()})
			spec := r.spec(r.image(t))
			spec.Sidecars = []engine.Sidecar{{Name: "web", Image: r.image(t, "EXPOSE 7000", `CMD ["nc", "-ll", "-p", "7000", "-e", "echo", "hello"]`)}}
			wire.cut.Store(step)
			if err := r.Start(t.Context(), spec); err == nil {
				t.Fatal("it was not interrupted")
			}
			wire.cut.Store("")
			name := r.start(t, spec)
			if out, code := r.run(t, name, "nc web 7000"); code != 0 || out != "hello\n" {
				t.Errorf("exit %d, %q", code, out)
			}
			found, err := r.api.ContainerList(t.Context(), client.ContainerListOptions{
				All: true, Filters: client.Filters{}.Add("label", "forge.instance="+r.config.Instance),
			})
			if err != nil || len(found.Items) != 2 {
				t.Errorf("there are %d containers, %v; want one and its service", len(found.Items), err)
			}
		})
	}
}

func TestNetworkThatNobodyWentOnWithIsListed(t *testing.T) {
	wire := newCutter(t, true)
	r := newRig(t, docker.Config{Host: wire.host()})
	wire.cut.Store("/containers/create")
	spec := r.spec(r.image(t))
	if err := r.Start(t.Context(), spec); err == nil {
		t.Fatal("it was not interrupted")
	}
	wire.cut.Store("")
	containers, err := r.api.ContainerRemove(t.Context(), "forge-"+spec.Attempt, client.ContainerRemoveOptions{Force: true})
	if err != nil {
		t.Fatal(containers, err)
	}
	r.listed(t, func(c engine.Container) bool { return !c.Running && c.Attempt == spec.Attempt })
}

func TestReadOnlyBuildHasItsWorkspaceAndTmp(t *testing.T) {
	r := newRig(t, docker.Config{ReadOnly: true, User: "1234:5678"})
	spec := r.spec(r.image(t))
	name := r.start(t, spec)
	for script, want := range map[string]string{
		"id -u; id -g": "1234\n5678\n",
		"for i in $(seq 100); do cd /forge/own/workspace 2>/dev/null && break; sleep 0.1; done; echo hello >file && cat file": "hello\n",
		"printf '#!/bin/sh\\necho ran\\n' >/tmp/x && chmod +x /tmp/x && /tmp/x":                                               "ran\n",
		"for dir in / /bin /etc /forge/runner; do touch $dir/x 2>/dev/null && echo $dir is written to; done; :":               "",
	} {
		if got, code := r.run(t, name, script); got != want || code != 0 {
			t.Errorf("%s: exit %d, %q, want %q", script, code, got, want)
		}
	}
	volumes := slices.DeleteFunc(r.inspect(t, name).Mounts, func(m container.MountPoint) bool { return m.Name == "" })
	if len(volumes) != 1 {
		t.Fatalf("volumes: %+v", volumes)
	}
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if _, err := r.api.VolumeInspect(t.Context(), volumes[0].Name, client.VolumeInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("the volume: %v", err)
	}
}
