package swarm_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

// BenchmarkStartInASwarm is until forgexec dials, held against what people compare
// it with: docker service create of a job on an overlay of its own, to its end. The
// two alternate; the ratio is what counts.
func BenchmarkStartInASwarm(b *testing.B) {
	s := kittest.NewSwarm(b, 1, 0)
	r := newRig(b, s, swarmengine.Config{Image: forgexecImage(b, s, builtForgexec(b))})
	image := s.Image(b)
	docker := func(args ...string) {
		b.Helper()
		command := exec.CommandContext(b.Context(), "docker", args...)
		command.Env = append(os.Environ(), "DOCKER_HOST="+s.Nodes[0].URL)
		if out, err := command.CombinedOutput(); err != nil {
			b.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	warm := r.spec(image) // until then the machine has no forgexec
	if err := r.Start(b.Context(), warm); err != nil {
		b.Fatal(err)
	}
	if err := r.Stop(b.Context(), warm.Attempt); err != nil {
		b.Fatal(err)
	}
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		n++
		spec := r.spec(image)
		listener, err := net.Listen("tcp", net.JoinHostPort(s.Address, "0")) // a new one, since forgexec dials again
		if err != nil {
			b.Fatal(err)
		}
		spec.Runner.URL = listener.Addr().String()
		begin := time.Now()
		started := make(chan error, 1)
		go func() { started <- r.Start(b.Context(), spec) }()
		conn, err := listener.Accept()
		if err != nil {
			b.Fatal(err)
		}
		ours += time.Since(begin)
		_, _ = conn.Close(), listener.Close()
		if err := <-started; err != nil {
			b.Fatal(err)
		}
		if err := r.Stop(b.Context(), spec.Attempt); err != nil {
			b.Fatal(err)
		}

		name := unique()
		begin = time.Now()
		docker("network", "create", "--driver", "overlay", name)
		docker("service", "create", "--quiet", "--mode", "replicated-job", "--restart-condition", "none", "--endpoint-mode", "dnsrr", "--network", name, "--name", name, image, "true")
		theirs += time.Since(begin)
		docker("service", "rm", name)
		docker("network", "rm", name)
	}
	b.ReportMetric(float64(ours.Milliseconds())/float64(n), "ms/start")
	b.ReportMetric(float64(theirs.Milliseconds())/float64(n), "ms/service-create")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}
