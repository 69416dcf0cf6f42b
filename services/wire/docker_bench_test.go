package wire_test

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// BenchmarkFirstCommandInDocker is from the webhook to the first command, in a
// container, held against what people compare it with: docker run --rm of the same
// image, to its end. The two alternate; the ratio is what counts.
func BenchmarkFirstCommandInDocker(b *testing.B) {
	kittest.Require(b, "docker")
	var image string
	w := newDockerWorld(b, "", func(name string) map[string]string {
		image = name
		return map[string]string{".forge.yml": lines("image: "+name, "execute: ['true']")}
	})
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		n++
		branch := fmt.Sprintf("change-%d", n)
		head := w.branch(b, branch, files("file", branch))
		begin := time.Now()
		w.open(b, branch)
		w.shows(b, head, "forge/test", "success")
		build := w.newest(b)
		ours += build.GetSteps()[0].GetStartTime().AsTime().Sub(begin)
		w.cleared(b, build.GetId())

		begin = time.Now()
		if out, err := exec.CommandContext(b.Context(), "docker", "run", "--rm", image, "true").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		theirs += time.Since(begin)
	}
	b.ReportMetric(float64(ours.Milliseconds())/float64(n), "ms/first-command")
	b.ReportMetric(float64(theirs.Milliseconds())/float64(n), "ms/docker-run")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}
