package docker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// A Docker engine that is in a container itself may lack the rights to start these;
// what is asked of it can be seen all the same.
func TestPrivilegedContainersAreOnlyThoseOfTheSpec(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t, `CMD ["sleep", "1000"]`)
	for _, build := range []bool{true, false} {
		spec := r.spec(image)
		spec.Privileged = build
		spec.Sidecars = []engine.Sidecar{{Name: "daemon", Image: image, Privileged: !build}, {Name: "db", Image: image}}
		if err := r.Start(t.Context(), spec); err != nil && !strings.Contains(err.Error(), "unable to apply caps") {
			t.Fatal(err)
		}
		name := "forge-" + spec.Attempt
		for container, want := range map[string]bool{name: build, name + "-daemon": !build, name + "-db": false} {
			host := r.inspect(t, container).HostConfig
			confined := slices.Contains(host.SecurityOpt, "no-new-privileges") && len(host.CapDrop) == 1 && strings.HasSuffix(host.CapDrop[0], "NET_RAW")
			if host.Privileged != want || confined == want || len(host.CapAdd) != 0 {
				t.Errorf("%s: privileged %v, %v, drops %v", container, host.Privileged, host.SecurityOpt, host.CapDrop)
			}
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVolumesOutliveTheirBuildsAndAreOnlyTheBuilds(t *testing.T) {
	r := newRig(t, docker.Config{})
	cache := t.TempDir()
	image := r.image(t, `CMD ["sleep", "1000"]`)
	for _, want := range []string{"none\n", "kept\n"} {
		spec := r.spec(image)
		spec.Volumes = []engine.Volume{{Source: cache, Target: "/cache"}}
		spec.Sidecars = []engine.Sidecar{{Name: "db", Image: image}}
		name := r.start(t, spec)
		if out, code := r.run(t, name, "cat /cache/x 2>/dev/null || echo none; echo kept >/cache/x"); code != 0 || out != want {
			t.Errorf("exit %d, %q, want %q", code, out, want)
		}
		if out, _ := r.run(t, name+"-db", "ls /cache 2>/dev/null || echo none"); out != "none\n" {
			t.Errorf("the service sees %q", out)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(cache, "x")); err != nil || string(text) != "kept\n" {
		t.Errorf("the volume after its builds: %q, %v", text, err)
	}
	spec := r.spec(image)
	spec.Volumes = []engine.Volume{{Source: filepath.Join(cache, "absent"), Target: "/cache"}}
	if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), filepath.Join(cache, "absent")) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestForksBuildIsNeverGivenTheHost(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	for name, change := range map[string]func(*engine.Spec){
		"privileged": func(s *engine.Spec) { s.Privileged = true },
		"volume":     func(s *engine.Spec) { s.Volumes = []engine.Volume{{Source: "/", Target: "/host"}} },
		"service":    func(s *engine.Spec) { s.Sidecars = []engine.Sidecar{{Name: "docker", Image: image, Privileged: true}} },
	} {
		spec := r.spec(image)
		spec.Fork = true
		change(&spec)
		if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "never given the host") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
