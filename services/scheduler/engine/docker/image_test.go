package docker_test

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestMissingImageIsPulledOnce(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	name := r.start(t, r.spec(image))
	if out, _ := r.run(t, name, "echo hello"); out != "hello\n" {
		t.Errorf("got %q", out)
	}
	if log := r.log(); !strings.HasPrefix(log, "pulling image "+image+"\n") || !strings.Contains(log, "\nimage "+image+" pulled in ") {
		t.Errorf("the build's log does not say so: %s", log)
	}
	once := reg.Manifests.Load()
	r.start(t, r.spec(image))
	if twice := reg.Manifests.Load(); once == 0 || twice != once {
		t.Errorf("manifests fetched: %d, then %d", once, twice)
	}
}

func TestImageIsPulledForEachBuildWhenAskedTo(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	r := newRig(t, docker.Config{Pull: docker.PullAlways})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	r.start(t, r.spec(image))
	once := reg.Manifests.Load()
	r.start(t, r.spec(image))
	if twice := reg.Manifests.Load(); once == 0 || twice <= once {
		t.Errorf("manifests fetched: %d, then %d", once, twice)
	}
}

func TestPrivateImageIsPulledWithTheCredentialsOfTheFile(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.User, reg.Password = "octo", "s3cret"
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	err := r.Start(t.Context(), r.spec(image))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "image "+image+" cannot be pulled: ") {
		t.Errorf("without credentials: %v", err)
	}
	login := func(password string) {
		auth := map[string]any{"username": "octo", "password": password}
		file := kittest.JSON(t, map[string]any{"auths": map[string]any{strings.TrimPrefix(reg.Server.URL, "http://"): auth}})
		if err := os.WriteFile(r.config.ConfigFile, file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login("wrong")
	if err := r.Start(t.Context(), r.spec(image)); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
	login("s3cret")
	r.start(t, r.spec(image))
}

func TestWhatKeepsAnImageAwayIsSaid(t *testing.T) {
	reg, foreign, down := kittest.NewRegistry(t, "", runtime.GOARCH), kittest.NewRegistry(t, "", "riscv64"), kittest.NewRegistry(t, "", runtime.GOARCH)
	down.Down.Store(true)
	r := newRig(t, docker.Config{})
	r.images = append(r.images, foreign.Image("octo/tools:1"))
	gone := kittest.FreeAddress(t)
	absent, other, away, nowhere := reg.Image("octo/tools:absent"), foreign.Image("octo/tools:1"), down.Image("octo/tools:1"), gone+"/octo/tools:1"
	for _, c := range []struct {
		image string
		want  []string
		again bool // it is tried twice
	}{
		{absent, []string{"image " + absent + " cannot be pulled: manifest unknown", "has no such image"}, false},
		{other, []string{"is for linux/riscv64, builds run on linux/" + runtime.GOARCH}, false},
		{away, []string{"does not answer as a registry should: pull image " + away + ": "}, true},
		{nowhere, []string{gone + " does not answer", "connection refused"}, true},
	} {
		r.said = nil
		err := r.Start(t.Context(), r.spec(c.image))
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want fault.Invalid", c.image, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", c.image, err, want)
			}
		}
		if again := strings.Contains(r.log(), "trying once more"); again != c.again || strings.Count(r.log(), "pulling image") > 2 {
			t.Errorf("%s: tried again: %v\n%s", c.image, again, r.log())
		}
		if left := r.left(t.Context(), t); left != "" {
			t.Errorf("%s: left %s", c.image, left)
		}
	}
}

func TestThePlatformThatIsAskedForIsTheOneThatRuns(t *testing.T) {
	foreign, native := kittest.NewRegistry(t, "", "riscv64"), kittest.NewRegistry(t, "", runtime.GOARCH)
	foreign.Index = kittest.JSON(t, map[string]any{"schemaVersion": 2, "mediaType": kittest.IndexType, "manifests": []any{map[string]any{
		"mediaType": kittest.ManifestType, "size": len(foreign.Manifest), "digest": kittest.Digest(foreign.Manifest), "platform": map[string]any{"os": "linux", "architecture": "riscv64"},
	}}})
	r := newRig(t, docker.Config{})
	mine := "linux/" + runtime.GOARCH
	image := native.Image("octo/tools:1")
	r.images = append(r.images, image)
	spec := r.spec(image)
	spec.Platform = mine
	r.start(t, spec)
	other := map[string]string{"linux/amd64": "linux/arm64", "linux/arm64": "linux/amd64"}[mine]
	for _, c := range []struct{ platform, image, want string }{
		{other, image, "it asks for platform " + other + ", builds run on " + mine + " here"},
		{mine, foreign.Image("octo/tools:1"), strings.TrimPrefix(foreign.Server.URL, "http://") + " has it for linux/riscv64, builds run on " + mine + " here"},
	} {
		spec := r.spec(c.image)
		spec.Platform = c.platform
		if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s on %s: got %v, want %q", c.image, c.platform, err, c.want)
		}
	}
	// The Docker engine has another platform's image under the same name.
	foreign.Index = nil
	strange, name := foreign.Image("octo/tools:2"), native.Image("octo/tools:2")
	r.images = append(r.images, strange, name)
	pulled, err := r.api.ImagePull(t.Context(), strange, client.ImagePullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pulled.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.api.ImageTag(t.Context(), client.ImageTagOptions{Source: strange, Target: name}); err != nil {
		t.Fatal(err)
	}
	spec = r.spec(name)
	if err := r.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is for linux/riscv64") {
		t.Errorf("another platform's image: %v", err)
	}
	spec.Platform = mine
	r.start(t, spec)
}

func TestLimitOfARegistryIsWaitedFor(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.Limited.Store(true)
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	spec := r.spec(image)
	host, _, _ := strings.Cut(image, "/")
	err := r.Start(t.Context(), spec)
	delayed, ok := errors.AsType[*engine.DelayError](err)
	if !ok || fault.Is(err, fault.Invalid) || delayed.Pause < time.Minute || delayed.Within != 0 {
		t.Fatalf("got %v", err)
	}
	for _, text := range []string{err.Error(), r.log()} {
		if !strings.Contains(text, "image "+image+" is not pulled yet, for "+host+" limits how many are") || !strings.Contains(text, "pull rate limit") || !strings.Contains(text, "docker login") {
			t.Errorf("it is not explained: %s", text)
		}
	}
	if !strings.Contains(r.log(), "trying again in 1m0s") {
		t.Errorf("the log does not say that it waits: %s", r.log())
	}
	reg.Limited.Store(false)
	r.start(t, spec)
}

func TestRegistryThatComesBackIsPulledFrom(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.Down.Store(true)
	r := newRig(t, docker.Config{})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	spec := r.spec(image)
	say := spec.Say
	spec.Say = func(line string) {
		say(line)
		if strings.Contains(line, "trying once more") {
			reg.Down.Store(false)
		}
	}
	r.start(t, spec)
}

// The Docker engine is away, not the registry: that may last, so the build waits.
func TestDockerThatGoesAwayDuringAPullIsNotTheRegistrysFault(t *testing.T) {
	wire := newCutter(t, false)
	r := newRig(t, docker.Config{Host: wire.host()})
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	spec := r.spec(reg.Image("octo/tools:1"))
	spec.Say = func(string) { wire.cut.Store("/") } // when the pull begins
	if err := r.Start(t.Context(), spec); err == nil || fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	wire.cut.Store("")
}

func TestProgressOfAPullIsInTheLog(t *testing.T) {
	reg := kittest.NewRegistry(t, "", runtime.GOARCH)
	reg.Slow = 20 * time.Millisecond
	r := newRig(t, docker.Config{ProgressEvery: time.Nanosecond})
	image := reg.Image("octo/tools:1")
	r.images = append(r.images, image)
	r.start(t, r.spec(image))
	if log := r.log(); !regexp.MustCompile(`pulling image \S+: [0-9.]+ [kM]?i?B of [0-9.]+ [kM]iB`).MatchString(log) {
		t.Errorf("got %s", log)
	}
}

func TestBrokenCredentialsFileIsNamed(t *testing.T) {
	r := newRig(t, docker.Config{})
	if err := os.WriteFile(r.config.ConfigFile, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.Start(t.Context(), r.spec("forge-test/absent:1"))
	if err == nil || fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), r.config.ConfigFile) {
		t.Errorf("got %v", err)
	}
}
