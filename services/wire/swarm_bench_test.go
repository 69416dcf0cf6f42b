package wire_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// BenchmarkFirstCommandInASwarm is from the webhook to the first command, on a swarm of
// one machine, held against what people compare it with: docker service create of a job
// on an overlay of its own, to its end. The two alternate; the ratio of the two in the
// middle is what counts.
func BenchmarkFirstCommandInASwarm(b *testing.B) {
	s := kittest.NewSwarm(b, 1, 0)
	w := newSwarmWorld(b, s, s.Nodes[0])
	w.foreman.LetAll(true)
	image := s.Image(b)
	docker := func(args ...string) {
		b.Helper()
		command := exec.CommandContext(b.Context(), "docker", args...)
		command.Env = append(os.Environ(), "DOCKER_HOST="+s.Nodes[0].URL)
		if out, err := command.CombinedOutput(); err != nil {
			b.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	var ours, theirs []time.Duration
	for n := 0; b.Loop(); n++ {
		branch := fmt.Sprintf("change-%d", n)
		head := w.branch(b, branch, files("file", branch))
		begin := time.Now()
		w.open(b, branch)
		w.shows(b, head, "forge/test", "success")
		build := w.whole(b, w.builds(b, head)[0].GetId())
		ours = append(ours, build.GetSteps()[0].GetStartTime().AsTime().Sub(begin))
		w.nothingIsLeft(b, swarmPatience)

		begin = time.Now()
		docker("network", "create", "--driver", "overlay", branch)
		docker("service", "create", "--quiet", "--mode", "replicated-job", "--restart-condition", "none", "--endpoint-mode", "dnsrr", "--network", branch, "--name", branch, image, "true")
		theirs = append(theirs, time.Since(begin))
		docker("service", "rm", branch)
		docker("network", "rm", branch)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	middle := len(ours) / 2
	b.ReportMetric(float64(ours[middle].Milliseconds()), "ms/first-command")
	b.ReportMetric(float64(theirs[middle].Milliseconds()), "ms/service-create")
	b.ReportMetric(float64(ours[middle])/float64(theirs[middle]), "ratio")
	b.ReportMetric(0, "ns/op")
}
