package swarm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

func aRepositorysLoginPullsItsImagesForItsBuildsAlone(t *testing.T, s *kittest.Swarm, image string) {
	reg := kittest.NewRegistry(t, s.Address, runtime.GOARCH)
	reg.User, reg.Password = "octo", "s3cret-of-octo"
	r := newRig(t, s, swarmengine.Config{Image: image})
	tools := reg.Image("octo/tools:1")
	host, _, _ := strings.Cut(tools, "/")
	marks := &enginetest.Marks{}
	of := func(repository, image string, login engine.Login) engine.Spec {
		spec := r.spec(image)
		spec.Repository, spec.Registries = repository, marks.Shows(login)
		return spec
	}
	own := engine.Login{Username: "octo", Password: "s3cret-of-octo"}
	mine := of("octo/cat", tools, own)
	if err := r.Start(t.Context(), mine); err != nil {
		t.Fatalf("%v\n%s", err, r.log())
	}
	if !slices.Contains(marks.Names(), host+"/octo/tools") {
		t.Errorf("it is not marked: %v", marks.Names())
	}
	service, err := r.api.ServiceInspect(t.Context(), "forge-"+mine.Attempt, client.ServiceInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen, err := json.Marshal([]any{service, r.container(t, mine.Attempt, "")})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(seen) + r.log(); strings.Contains(text, "s3cret") {
		t.Errorf("the password is told: %s", text)
	}

	// The machine has it now, and would run it for anybody.
	refused := func(spec engine.Spec, want string) {
		t.Helper()
		err := r.Start(t.Context(), spec)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tools) || !strings.Contains(err.Error(), host+" refuses it; "+want) {
			t.Errorf("%s: got %v", spec.Repository, err)
		}
		if text := fmt.Sprint(err, r.log()); strings.Contains(text, "s3cret") || strings.Contains(text, "wr0ng") {
			t.Errorf("a password is told: %s", text)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
	refused(of("evil/dog", tools, engine.Login{}), "credentials for it belong into FORGE_BUILD_REGISTRIES_FILE (docker login), or are set for this repository: forge secrets registry set "+host+" --repo evil/dog")
	refused(of("evil/dog", tools, engine.Login{Username: "evil", Password: "wr0ng-one"}), "those that are set for it are refused")
	fork := of("octo/cat", tools, engine.Login{Withheld: "the credentials for it are not for builds of forks"})
	fork.Fork = true
	refused(fork, "the credentials for it are not for builds of forks")
	beside := of("evil/dog", s.Image(t), engine.Login{})
	beside.Sidecars = []engine.Sidecar{{Name: "db", Image: tools}}
	refused(beside, "credentials")

	reg.Down.Store(true)
	away := of("evil/dog", tools, engine.Login{})
	err = r.Start(t.Context(), away)
	if delayed, ok := errors.AsType[*engine.DelayError](err); !ok || delayed.Pause == 0 || !strings.Contains(err.Error(), "image "+tools+" is for the builds that "+host+" gives it, which does not say") {
		t.Errorf("without an answer: %v", err)
	}
	if err := r.Stop(t.Context(), away.Attempt); err != nil {
		t.Error(err)
	}
	local := of("evil/dog", s.Image(t), engine.Login{}) // of no registry
	if err := r.Start(t.Context(), local); err != nil {
		t.Error(err)
	}
}
