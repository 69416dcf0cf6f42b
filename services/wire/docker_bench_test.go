package wire_test

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
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

// BenchmarkPlaceBesideWaiting is from a build's making to when the engine is asked for its
// container, and to its first command, beside containers that wait and while the next of
// those is made; held against the same where none wait.
func BenchmarkPlaceBesideWaiting(b *testing.B) {
	kittest.Require(b, "docker")
	type forge struct {
		*dockerWorld
		image       string
		place, took []time.Duration
	}
	start := func(warm string) *forge {
		f := &forge{}
		f.dockerWorld = newDockerWorld(b, "", func(image string) map[string]string {
			f.image = image
			return map[string]string{".forge.yml": lines("image: "+image, "execute: ['true']")}
		}, "--warm="+warm)
		return f
	}
	waiting, none := start("2"), start("0")
	round := func(f *forge, n int) {
		taker, other := fmt.Sprintf("taker-%d", n), fmt.Sprintf("other-%d", n)
		taken := f.branch(b, taker, files("file", "x"))
		built := f.branch(b, other, files(".forge.yml",
			lines("image: "+f.image, fmt.Sprintf("resources: {memory: %dMiB}", 100+n), "execute: ['true']"))) // none that waits is like it
		f.open(b, taker)
		f.shows(b, taken, "forge/test", "success")
		f.cleared(b, f.newest(b).GetId())
		if f == waiting {
			f.makesReady(b)
		}
		f.open(b, other)
		build := f.linked(b, f.shows(b, built, "forge/test", "success"))
		f.cleared(b, build.GetId())
		made := build.GetCreateTime().AsTime()
		f.place = append(f.place, build.GetPlaceTime().AsTime().Sub(made))
		f.took = append(f.took, build.GetStartTime().AsTime().Sub(made))
	}
	for _, f := range []*forge{waiting, none} { // the image was used before
		_, head := f.propose(b, "first", files("file", "x"))
		f.cleared(b, f.linked(b, f.shows(b, head, "forge/test", "success")).GetId())
	}
	n := 0
	for b.Loop() {
		n++
		waiting.warmed(b)
		round(waiting, n)
		round(none, n)
	}
	for _, all := range [][]time.Duration{waiting.place, waiting.took, none.place, none.took} {
		slices.Sort(all)
	}
	b.ReportMetric(float64(waiting.place[n/2].Microseconds())/1000, "ms/place")
	b.ReportMetric(float64(waiting.place[n/2])/float64(none.place[n/2]), "ratio")
	b.ReportMetric(float64(waiting.took[n/2])/float64(none.took[n/2]), "first-command-ratio")
}

// makesReady returns while the engine makes a container that will wait.
func (w *dockerWorld) makesReady(b *testing.B) {
	b.Helper()
	kittest.Eventually(b, dockerPatience, func() error {
		found, err := w.api.ContainerList(b.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("name", "^/?forge_waiting_").Add("status", "created")})
		if err == nil && len(found.Items) == 0 {
			err = errors.New("none is made")
		}
		return err
	})
}
