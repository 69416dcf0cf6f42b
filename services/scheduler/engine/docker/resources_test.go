package docker_test

import (
	"testing"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestSharedMemoryIsLargeEnoughForBrowsersAndDatabases(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	for _, c := range []struct {
		memory, asked int64
		want          string // blocks of a KiB
	}{
		{0, 0, "1048576"},
		{256 << 20, 0, "131072"},
		{256 << 20, 200 << 20, "204800"},
		{64 << 20, 1 << 30, "65536"}, // more than the memory can never be filled
		{0, 3 << 30, "3145728"},
	} {
		spec := r.spec(image)
		spec.Memory, spec.SharedMemory = c.memory, c.asked
		spec.Sidecars = []engine.Sidecar{{Name: "db", Image: r.image(t, `CMD ["sleep", "1000"]`)}}
		name := r.start(t, spec)
		for _, container := range []string{name, name + "-db"} {
			if got, _ := r.run(t, container, "df -k /dev/shm | awk 'END {print $2}'"); got != c.want+"\n" {
				t.Errorf("memory %d, asked for %d: /dev/shm of %s is %q, want %s", c.memory, c.asked, container, got, c.want)
			}
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Fatal(err)
		}
	}
}
