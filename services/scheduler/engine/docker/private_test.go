package docker_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
)

// of is the spec of a build of a repository, which has the login.
func (r *rig) of(m *enginetest.Marks, repository, image string, login engine.Login) engine.Spec {
	spec := r.spec(image)
	spec.Repository, spec.Registries = repository, m.Shows(login)
	return spec
}

func TestARepositorysLoginPullsItsImagesForItsBuildsAlone(t *testing.T) {
	for name, change := range map[string]func(*kittest.Registry){
		"basic":         func(*kittest.Registry) {},
		"token service": func(reg *kittest.Registry) { reg.Tokens = true },
	} {
		t.Run(name, func(t *testing.T) {
			reg := kittest.NewRegistry(t, "", runtime.GOARCH)
			reg.User, reg.Password = "octo", "s3cret-of-octo"
			change(reg)
			m := &enginetest.Marks{}
			r := newRig(t, docker.Config{Waiting: 2})
			image := reg.Image("octo/tools:1")
			host, path, _ := strings.Cut(image, "/")
			r.images = append(r.images, image)
			own := engine.Login{Username: "octo", Password: "s3cret-of-octo"}

			refused := func(spec engine.Spec, wants ...string) {
				t.Helper()
				before := r.log()
				err := r.Start(t.Context(), spec)
				if !fault.Is(err, fault.Invalid) {
					t.Fatalf("%s: got %v, want fault.Invalid", spec.Repository, err)
				}
				for _, want := range append(wants, host+" refuses it") {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s: got %v, want %q", spec.Repository, err, want)
					}
				}
				if text := err.Error() + strings.TrimPrefix(r.log(), before); strings.Contains(text, "s3cret") || strings.Contains(text, "wr0ng") {
					t.Errorf("%s: a password is told: %s", spec.Repository, text)
				}
				if left := r.left(t.Context(), t); strings.Contains(left, spec.Attempt) {
					t.Errorf("%s: left %s", spec.Repository, left)
				}
			}
			refused(r.of(m, "octo/cat", image, engine.Login{}), "image "+image+" cannot be pulled", "forge secrets registry set "+host+" --repo octo/cat")
			refused(r.of(m, "octo/cat", image, engine.Login{Username: "octo", Password: "wr0ng-one"}), "cannot be pulled", "those that are set for it are refused")
			if len(m.Names()) > 0 {
				t.Errorf("an image that nobody got is marked: %v", m.Names())
			}

			mine := r.of(m, "octo/cat", image, own)
			container := r.start(t, mine)
			if !slices.Contains(m.Names(), host+"/octo/tools") {
				t.Errorf("%s is not marked: %v", path, m.Names())
			}
			seen, err := json.Marshal(r.inspect(t, container))
			if err != nil {
				t.Fatal(err)
			}
			env, _ := r.run(t, container, "env; cat /proc/1/environ; cat ~/.docker/config.json 2>&1")
			for where, text := range map[string]string{"inspect": string(seen), "the container": env, "the log": r.log()} {
				if strings.Contains(text, "s3cret") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("octo:s3cret-of-octo"))) {
					t.Errorf("%s holds the password: %s", where, text)
				}
			}

			// It is there now, also as a container that waits.
			if err := r.Prepare(t.Context(), mine); err != nil {
				t.Fatal(err)
			}
			asked := reg.Manifests.Load()
			r.start(t, r.of(m, "octo/cat", image, own))
			if again := reg.Manifests.Load(); again != asked {
				t.Errorf("the registry is asked %d times for who has just pulled it", again-asked)
			}
			there := "is on this machine for other repositories alone"
			inspected, err := r.api.ImageInspect(t.Context(), image)
			if err != nil {
				t.Fatal(err)
			}
			if len(inspected.RepoDigests) == 0 {
				t.Fatal("the image has no digest")
			}
			beside := r.of(m, "evil/dog", "forge/absent:1", engine.Login{})
			beside.Image, beside.Sidecars = r.image(t), []engine.Sidecar{{Name: "db", Image: image}}
			refused(r.of(m, "evil/dog", image, engine.Login{}), there, "forge secrets registry set "+host+" --repo evil/dog")
			refused(r.of(m, "evil/dog", inspected.RepoDigests[0], engine.Login{}), there)
			refused(r.of(m, "evil/dog", image, engine.Login{Username: "evil", Password: "wr0ng-one"}), there)
			refused(beside, there, "service db")
			withheld := r.of(m, "octo/cat", image, engine.Login{Withheld: "the credentials for " + host + " are not for builds of forks"})
			withheld.Fork = true
			refused(withheld, there, "are not for builds of forks")
			for _, id := range []string{inspected.ID, strings.TrimPrefix(inspected.ID, "sha256:"), strings.TrimPrefix(inspected.ID, "sha256:")[:12]} {
				if err := r.Start(t.Context(), r.of(m, "evil/dog", id, engine.Login{})); err == nil {
					t.Errorf("the image is had by its id %s", id)
				}
			}

			// Another that the registry gives it to.
			r.start(t, r.of(m, "acme/bird", image, own))
			if !slices.Contains(m.Names(), host+"/octo/tools") {
				t.Error("it is marked no more")
			}
			// It becomes public, which the next build finds.
			reg.User, reg.Password = "", ""
			r.start(t, r.of(m, "evil/dog", image, engine.Login{}))
			if len(m.Names()) > 0 {
				t.Errorf("a public image is still marked: %v", m.Names())
			}
			asked = reg.Manifests.Load()
			r.start(t, r.of(m, "evil/dog", image, engine.Login{}))
			if again := reg.Manifests.Load(); again != asked {
				t.Errorf("the registry is asked %d times about an image for all", again-asked)
			}
		})
	}
}

// What all may pull is nobody's, whatever it is pulled with: nobody else has to ask for it.
func TestAPublicImageIsNotMarkedByWhoPullsItWithALogin(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	m := &enginetest.Marks{}
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	reg.Open = true
	r.start(t, r.of(m, "octo/cat", image, engine.Login{Username: "octo", Password: "s3cret-of-octo"}))
	if len(m.Names()) > 0 {
		t.Errorf("marked: %v", m.Names())
	}
	reg.Server.Close() // what is there goes on
	r.start(t, r.of(m, "acme/bird", image, engine.Login{}))
}

func TestAPrivateImageOfARegistryThatIsAwayIsForNobody(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.User, reg.Password = "octo", "s3cret-of-octo"
	m := &enginetest.Marks{}
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	own := engine.Login{Username: "octo", Password: "s3cret-of-octo"}
	r.start(t, r.of(m, "octo/cat", image, own))
	r.start(t, r.of(m, "acme/bird", image, own)) // it shows the same

	reg.Limited.Store(true)
	if err := r.Start(t.Context(), r.of(m, "evil/dog", image, engine.Login{})); err == nil || !strings.Contains(err.Error(), "limits how many are") {
		t.Errorf("429: %v", err)
	}
	reg.Limited.Store(false)
	reg.Down.Store(true)
	if err := r.Start(t.Context(), r.of(m, "evil/dog", image, engine.Login{})); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not answer as a registry should") {
		t.Errorf("503: %v", err)
	}
	r.start(t, r.of(m, "octo/cat", image, own)) // it has proven it a moment ago
	reg.Server.Close()
	if err := r.Start(t.Context(), r.of(m, "evil/dog", image, engine.Login{})); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("away: %v", err)
	}
	local := r.image(t) // of no registry
	r.start(t, r.of(m, "evil/dog", local, engine.Login{}))
}

func TestARegistryThatRepeatsWhatItIsShownDoesNotPrintIt(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.User, reg.Password, reg.Repeats = "octo", "another", true
	r := newRig(t, docker.Config{})
	spec := r.of(&enginetest.Marks{}, "octo/cat", reg.Image("octo/tools:1"), engine.Login{Username: "octo", Password: "s3cret-of-octo"})
	err := r.Start(t.Context(), spec)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "authentication required Basic ***") {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%+v", err), r.log()} {
		if strings.Contains(text, "s3cret") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("octo:s3cret-of-octo"))) {
			t.Errorf("the password is told: %s", text)
		}
	}
}

// What docker login has stored is for every build, and an image that was pulled with it.
func TestWhatTheFileOpensIsForAllBuilds(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.User, reg.Password = "octo", "s3cret-of-octo"
	m := &enginetest.Marks{}
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	auth := map[string]any{"username": "octo", "password": "s3cret-of-octo"}
	file := kittest.JSON(t, map[string]any{"auths": map[string]any{strings.TrimPrefix(reg.Server.URL, "http://"): auth}})
	if err := os.WriteFile(r.config.ConfigFile, file, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t, r.of(m, "octo/cat", image, engine.Login{Username: "octo", Password: "s3cret-of-octo"}))
	if len(m.Names()) > 0 {
		t.Errorf("marked: %v", m.Names())
	}
	asked := reg.Manifests.Load()
	r.start(t, r.of(m, "acme/bird", image, engine.Login{}))
	if again := reg.Manifests.Load(); again != asked {
		t.Error("the registry is asked again")
	}
}
