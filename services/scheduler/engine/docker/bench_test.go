package docker_test

import (
	"os/exec"
	"testing"

	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// BenchmarkStart is until forgexec dials; BenchmarkRun is what people compare it
// with: docker run --rm of the same image, to its end.
func BenchmarkStart(b *testing.B) {
	r := newRig(b, docker.Config{})
	image := r.image(b)
	for b.Loop() {
		spec := r.spec(image)
		r.start(b, spec)
		conn, err := r.socket.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := conn.Close(); err != nil {
			b.Fatal(err)
		}
		if err := r.Stop(b.Context(), spec.Attempt); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkRun(b *testing.B) {
	image := newRig(b, docker.Config{})
	name := image.image(b)
	for b.Loop() {
		if out, err := exec.CommandContext(b.Context(), "docker", "run", "--rm", name, "true").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
