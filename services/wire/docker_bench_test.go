package wire_test

import (
	"errors"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// BenchmarkFirstCommandInDocker is from the webhook to the first command, in a
// container that waited for it and in one that is made for it, held against what people
// compare it with: docker run --rm of the same image, to its end, on the network that all
// share and on one of its own. They alternate; the ratios are what counts.
func BenchmarkFirstCommandInDocker(b *testing.B) {
	for _, warm := range []string{"1", "0"} {
		b.Run(map[string]string{"1": "waiting", "0": "cold"}[warm], func(b *testing.B) { firstCommandInDocker(b, warm) })
	}
}

func firstCommandInDocker(b *testing.B, warm string) {
	b.Helper()
	kittest.Require(b, "docker")
	var image string
	w := newDockerWorld(b, "", func(name string) map[string]string {
		image = name
		return map[string]string{".forge.yml": lines("image: "+name, "execute: ['true']")}
	}, "--warm="+warm)
	build := func(branch string) time.Duration {
		head := w.branch(b, branch, files("file", branch))
		begin := time.Now()
		w.open(b, branch)
		w.shows(b, head, "forge/test", "success")
		build := w.newest(b)
		w.cleared(b, build.GetId())
		return build.GetSteps()[0].GetStartTime().AsTime().Sub(begin)
	}
	docker := func(args ...string) time.Duration {
		begin := time.Now()
		if out, err := exec.CommandContext(b.Context(), "docker", args...).CombinedOutput(); err != nil {
			b.Fatalf("docker %v: %v: %s", args, err, out)
		}
		return time.Since(begin)
	}
	build("first") // the image was used before
	var ours, shared, apart time.Duration
	n := 0
	for b.Loop() {
		n++
		if warm != "0" {
			w.warmed(b)
		}
		ours += build(fmt.Sprintf("change-%d", n))
		shared += docker("run", "--rm", image, "true")
		network := fmt.Sprintf("forge-bench-%d", n)
		apart += docker("network", "create", network) + docker("run", "--rm", "--network", network, image, "true")
		docker("network", "rm", network)
	}
	b.ReportMetric(float64(ours.Milliseconds())/float64(n), "ms/first-command")
	b.ReportMetric(float64(shared.Milliseconds())/float64(n), "ms/docker-run")
	b.ReportMetric(float64(ours)/float64(shared), "ratio")
	b.ReportMetric(float64(ours)/float64(apart), "own-network-ratio")
}

// warmed returns once a container waits for a build.
func (w *dockerWorld) warmed(b *testing.B) {
	b.Helper()
	kittest.Eventually(b, dockerPatience, func() error {
		found, err := w.api.ContainerList(b.Context(), client.ContainerListOptions{Filters: client.Filters{}.Add("name", "^/?forge_waiting_")})
		if err == nil && len(found.Items) == 0 {
			err = errors.New("no container waits")
		}
		return err
	})
}
