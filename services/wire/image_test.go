package wire_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// images is a registry of images, whose answers a test may hold back.
type images struct {
	host string

	mu     sync.Mutex
	asked  []string
	hold   func(r *http.Request)
	answer func(w http.ResponseWriter, r *http.Request) (answered bool)
}

func newImages(t *testing.T) *images {
	t.Helper()
	return newGuardedImages(t, nil)
}

// newGuardedImages is a registry in whose place a test may answer.
func newGuardedImages(t *testing.T, answer func(w http.ResponseWriter, r *http.Request) (answered bool)) *images {
	t.Helper()
	i := &images{answer: answer}
	kept := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.asked = append(i.asked, r.Method+" "+r.URL.Path)
		hold, answer := i.hold, i.answer
		i.mu.Unlock()
		if answer != nil && answer(w, r) {
			return
		}
		if hold != nil {
			hold(r)
		}
		kept.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	i.host = strings.TrimPrefix(server.URL, "http://")
	return i
}

func (i *images) holding(hold func(r *http.Request)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hold = hold
}

// written are requests that change something, so far.
func (i *images) written() (all []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, asked := range i.asked {
		if !strings.HasPrefix(asked, http.MethodGet) && !strings.HasPrefix(asked, http.MethodHead) {
			all = append(all, asked)
		}
	}
	return all
}

// digest is what a tag names; an error where it names nothing.
func (i *images) digest(t *testing.T, tag string) (string, error) {
	t.Helper()
	ref, err := name.ParseReference(i.host+"/"+tag, name.Insecure)
	must(t, err)
	found, err := remote.Head(ref)
	if err != nil {
		return "", err
	}
	return found.Digest.String(), nil
}

// imageNetworks lets images be pushed to this machine.
const imageNetworks = "--image-networks=127.0.0.0/8"

// A pull request builds the image and changes nothing of the registry; what was merged
// pushes it for two platforms, and a later job is told which it is.
func TestImageIsBuiltPushedAndNamedToLaterJobs(t *testing.T) {
	kittest.Require(t, "docker")
	i := newImages(t)
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{
			".forge.yml": lines(
				"image: "+image,
				"x-image: &image",
				"  image:",
				"    dockerfile: deploy/Dockerfile",
				"    args: {WHAT: 'of ${FORGE_REPO} ${FLAVOUR}'}",
				"    platforms: [linux/amd64, linux/arm64]",
				"    tags: ['"+i.host+"/acme/web:${FORGE_SHA}', '"+i.host+"/acme/web:${FLAVOUR}-latest']",
				"    push: true",
				"    output: WEB_IMAGE",
				"execute: ['mkdir -p dist; echo made >dist/app; echo FLAVOUR=plain >>$FORGE_ENV', *image]",
				"deploy:",
				"  staging:",
				"    jobs:",
				"      image: {execute: ['mkdir -p dist; echo made >dist/app; echo FLAVOUR=plain >>$FORGE_ENV', *image, 'echo here: $WEB_IMAGE']}",
				"      release: {needs: [image], execute: ['echo told: $NEEDS_IMAGE_WEB_IMAGE']}",
			),
			"deploy/Dockerfile": lines("FROM scratch", "ARG WHAT", "LABEL what=$WHAT", "COPY dist/app /app"),
			".dockerignore":     lines("*", "!dist"),
		}
	}, imageNetworks)
	number, head := w.propose(t, "change", files("file", "x"))
	w.shows(t, head, "forge/test", "success")
	test := w.newest(t)
	if log := w.log(t, test.GetUrl()); !strings.Contains(log, "it is built and not pushed") || !strings.Contains(log, "COPY dist/app /app") {
		t.Errorf("log of the pull request:\n%s", log)
	}
	if written := i.written(); len(written) > 0 {
		t.Errorf("a pull request wrote to the registry: %q", written)
	}
	merged := w.merge(t, number)
	deploy := w.linked(t, w.shows(t, merged, "forge/deploy-staging", "success"))
	want, err := i.digest(t, "acme/web:"+merged)
	must(t, err)
	latest, err := i.digest(t, "acme/web:plain-latest")
	must(t, err)
	kittest.Want(t, latest, want, "digest of the other tag")
	said := i.host + "/acme/web@" + want
	for job, line := range map[string]string{"image": "here: " + said, "release": "told: " + said} {
		if log := w.jobLog(t, deploy, job); !strings.Contains(log, line) {
			t.Errorf("log of %s, want %q:\n%s", job, line, log)
		}
	}
	ref, err := name.ParseReference(i.host+"/acme/web:"+merged, name.Insecure)
	must(t, err)
	index, err := remote.Index(ref)
	must(t, err)
	manifest, err := index.IndexManifest()
	must(t, err)
	platforms := map[string]string{}
	for _, m := range manifest.Manifests {
		if image, err := index.Image(m.Digest); err == nil && m.Platform.OS != "unknown" {
			config, err := image.ConfigFile()
			must(t, err)
			platforms[m.Platform.String()] = config.Config.Labels["what"] + ", " + config.Config.Labels["org.opencontainers.image.revision"]
		}
	}
	kittest.Want(t, fmt.Sprint(platforms), fmt.Sprint(map[string]string{
		"linux/amd64": "of " + repo + " plain, " + merged, "linux/arm64": "of " + repo + " plain, " + merged,
	}), "platforms and labels")
	w.promoted(t)
	w.cleared(t, test.GetId(), deploy.GetId())
}

// promoted waits until the pull request is tested that a passed deploy to staging has
// asked for, and nothing is left of that.
func (w *dockerWorld) promoted(t testing.TB) {
	t.Helper()
	w.cleared(t, w.linked(t, w.shows(t, w.promotion(t).HeadSHA, "forge/staging", "success")).GetId())
}

// jobLog is the log of a build's job.
func (w *dockerWorld) jobLog(t testing.TB, b *schedulerv1.Build, job string) string {
	t.Helper()
	for _, one := range b.GetJobs() {
		if one.GetName() == job {
			return w.log(t, one.GetUrl())
		}
	}
	t.Fatalf("build %s has no job %s", b.GetId(), job)
	return ""
}

// Forge is killed while it pushes. The step ends, no tag names half an image, and the
// next attempt pushes it.
func TestSIGKILLOfForgeWhileAnImageIsPushed(t *testing.T) {
	kittest.Require(t, "docker")
	i := newImages(t)
	tagged := regexp.MustCompile(`^/v2/acme/web/manifests/latest$`)
	pushing, goOn := make(chan struct{}, 10), make(chan struct{})
	i.holding(func(r *http.Request) {
		if r.Method == http.MethodPut && tagged.MatchString(r.URL.Path) {
			pushing <- struct{}{}
			<-goOn
			if r.Context().Err() != nil { // nobody asks any more
				r.Body = http.NoBody
			}
		}
	})
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{
			".forge.yml": lines(
				"image: "+image,
				"retry: {times: 1, on: [lost]}",
				"execute: [echo tested]",
				"deploy: {staging: [echo before, {image: {tags: ['"+i.host+"/acme/web:latest'], push: true}}, echo after]}",
			),
			"Dockerfile": lines("FROM scratch", "COPY Dockerfile /"),
		}
	}, imageNetworks)
	number, head := w.propose(t, "change", files("file", "x"))
	w.shows(t, head, "forge/test", "success")
	w.cleared(t, w.newest(t).GetId())
	merged := w.merge(t, number)
	<-pushing
	w.process("forge").kill()
	if _, err := i.digest(t, "acme/web:latest"); err == nil {
		t.Error("a tag names what was not pushed whole")
	}
	close(goOn)
	w.process("forge").begin(t)
	w.awaitUp(t)
	deploy := w.linked(t, w.shows(t, merged, "forge/deploy-staging", "success"))
	kittest.Want(t, deploy.GetAttempt(), 2, "attempts")
	if log := w.attemptLog(t, deploy.GetId(), 1); !strings.Contains(log, "no image was built: ") || strings.Contains(log, "after") {
		t.Errorf("log of the first attempt:\n%s", log)
	}
	if _, err := i.digest(t, "acme/web:latest"); err != nil {
		t.Error(err)
	}
	w.promoted(t)
	w.cleared(t, deploy.GetId())
}
