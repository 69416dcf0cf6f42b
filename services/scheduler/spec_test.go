package scheduler

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

func TestEngineIsAskedForServicesAndThePortsThatAreAllowed(t *testing.T) {
	r := sqliteRig(t)
	r.deps.Limits.PortAllowed = func(port int32) bool { return port == 8080 }
	r.start()
	config := usual()
	config.Ports = []*configv1.Port{{Container: 80, Host: 8080}, {Container: 22, Host: 2222}}
	config.Resources, config.Platform = &configv1.Resources{Shm: 2 << 30}, "linux/arm64"
	config.Services = map[string]*configv1.Sidecar{
		"web": {Image: "nginx:1"},
		"db": {
			Image: "postgres:16", Environment: map[string]string{"POSTGRES_PASSWORD": "x"}, Command: []string{"-c", "fsync=off"},
			Entrypoint: []string{"postgres"}, Ready: &configv1.Ready{Port: 5432, Run: "pg_isready", Within: durationpb.New(time.Minute)},
		},
	}
	r.config.set("aaa", valid(config))
	id := r.built(opened(1, "aaa"))
	spec := r.spec(id, 1)
	if !slices.Equal(spec.Ports, []engine.Port{{Container: 80, Host: 8080}}) {
		t.Errorf("ports %v", spec.Ports)
	}
	if spec.SharedMemory != 2<<30 || spec.Platform != "linux/arm64" {
		t.Errorf("shared memory %d, platform %s", spec.SharedMemory, spec.Platform)
	}
	if len(spec.Sidecars) != 2 || spec.Sidecars[0].Name != "db" || spec.Sidecars[0].Image != "postgres:16" ||
		len(spec.Sidecars[0].Environment) != 1 || spec.Sidecars[1].Name != "web" {
		t.Errorf("services %+v", spec.Sidecars)
	}
	db := spec.Sidecars[0]
	if !slices.Equal(db.Command, []string{"-c", "fsync=off"}) || !slices.Equal(db.Entrypoint, []string{"postgres"}) ||
		db.Ready != (engine.Ready{Run: "pg_isready", Port: 5432, Within: time.Minute}) {
		t.Errorf("service db: %+v", db)
	}
	if got, want := r.printed(id), "forge: port 22 is not published: this server does not let builds have its port 2222 (FORGE_BUILD_PORTS)\n"; got != want {
		t.Errorf("the log says %q, want %q", got, want)
	}
}

func TestWhatStartWaitsForStandsAheadOfTheOutput(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		spec.Sayf("pulling image %s", spec.Image)
		spec.Say("pulled")
		const said = "forge: pulling image golang:1.26\nforge: pulled\n"
		const all = said + "ok\n" + "ok\n"
		if got := r.printed(id); got != said {
			t.Errorf("before the runner comes the log says %q", got)
		}
		r.pass(id)
		if got := r.printed(id); got != all {
			t.Errorf("in the end it says %q", got)
		}
		if step := r.build(id).GetSteps()[0]; step.GetLogOffset() != int64(len(said)) {
			t.Errorf("the first step begins at %d, want %d", step.GetLogOffset(), len(said))
		}
		spec.Say("too late")
		if got := r.printed(id); got != all {
			t.Errorf("after the end it says %q", got)
		}
	})
}

// What the engine says last before it gives up is there to be read.
func TestLogOfABuildThatNeverStartedSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.engine.set(func(e *memoryEngine) {
			e.startErr, e.says = fault.New(fault.Invalid, "service db ended"), "db | no space left"
		})
		id := r.built(opened(1, "aaa"))
		r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if got := r.printed(id); got != "forge: db | no space left\n" {
			t.Errorf("the log says %q", got)
		}
	})
}

// printed is the log of a build so far.
func (r *rig) printed(id string) string {
	r.t.Helper()
	stream, err := r.builds.WatchLog(r.t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return string(readLog(r.t, stream, 0))
}
