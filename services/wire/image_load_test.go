package wire_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// loaded are the images with a label that builds have in the Docker engine for their jobs.
func (w *dockerWorld) loaded(ctx context.Context, t testing.TB, label string) (names []string) {
	t.Helper()
	found, err := w.api.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("label", label)})
	must(t, err)
	for _, one := range found.Items {
		for _, name := range one.RepoTags {
			if strings.HasPrefix(name, "forge-load/") {
				names = append(names, name)
			}
		}
	}
	return names
}

// A job loads an image, a later one of its build is run from it and has a service of it;
// another build that knows the name is refused; and it goes with its build, though Forge
// is killed meanwhile.
func TestALoadedImageIsForItsBuildAlone(t *testing.T) {
	kittest.Require(t, "docker")
	label := "forge.test=" + strings.ToLower(rand.Text())
	config := func(image string) map[string]string {
		return map[string]string{
			".forge.yml": lines(
				"image: "+image,
				"jobs:",
				"  build:",
				"    execute: ['mkdir -p root/tmp; cp -a /bin root/bin; echo of the build >root/made', {image: {load: true, output: WEB}}, 'echo here: $WEB']",
				"  use:",
				"    needs: [build]",
				"    image: ${NEEDS_BUILD_WEB}",
				"    services: {web: {image: '${NEEDS_BUILD_WEB}', command: [nc, -ll, -p, '7000', -e, cat, /made], ready: 7000}}",
				"    execute: ['echo begun $(cat /made)', 'until [ -e /tmp/go ]; do sleep 0.1; done', 'echo the service is $(nc web 7000)']",
			),
			"Dockerfile": lines("FROM scratch", "LABEL "+label, "ENV PATH=/bin", "COPY root /"),
		}
	}
	w := newDockerWorld(t, "", config)
	_, head := w.propose(t, "change", files("file", "x"))
	w.shows(t, head, "forge/test/build", "success")
	w.shows(t, head, "forge/test/use", "pending")
	build := w.newest(t)
	use := build.GetJobs()[1]
	w.running(t, use.GetId(), 1)
	kittest.Eventually(t, dockerPatience, func() error {
		if log := w.jobLog(t, build, "use"); !strings.Contains(log, "begun") {
			return fmt.Errorf("it has not begun: %s", log)
		}
		return nil
	})
	names := w.loaded(t.Context(), t, label)
	if len(names) != 1 || !strings.Contains(w.jobLog(t, build, "build"), "here: "+names[0]) {
		t.Fatalf("loaded are %q", names)
	}
	_, guessed := w.propose(t, "guess", files(".forge.yml", lines("image: docker.io/"+names[0], "execute: cat /made")))
	w.shows(t, guessed, "forge/test", "error")
	if b := w.newest(t); !strings.Contains(b.GetMessage(), "is not for this build") {
		t.Errorf("a build that has guessed the name: %s", b.GetMessage())
	}

	w.process("forge").kill()
	w.process("forge").begin(t)
	w.awaitUp(t)
	w.let(t, use.GetId(), 1)
	w.shows(t, head, "forge/test", "success")
	if log := w.jobLog(t, build, "use"); !strings.Contains(log, "begun of the build") || !strings.Contains(log, "the service is of the build") {
		t.Errorf("log of the job that is run from it:\n%s", log)
	}
	w.cleared(t, use.GetId())
	kittest.Eventually(t, dockerPatience, func() error {
		if left := w.loaded(t.Context(), t, label); len(left) > 0 {
			return fmt.Errorf("in the engine still: %q", left)
		}
		return nil
	})
}
