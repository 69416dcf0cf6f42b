package docker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
)

func TestDockerIsAnEngine(t *testing.T) {
	isAnEngine(t, func(made *docker.Engine, _ *rig) engine.Engine { return made })
}

// prepared has a container wait for each attempt before it is started.
type prepared struct {
	*docker.Engine
	r *rig
}

func (p prepared) Start(ctx context.Context, spec engine.Spec) error {
	name := "forge-" + spec.Attempt
	if _, err := p.r.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{}); err == nil {
		return p.Engine.Start(ctx, spec)
	}
	unprepared := p.Prepare(ctx, spec)
	err := p.Engine.Start(ctx, spec)
	if err != nil || len(spec.Sidecars) > 0 || len(spec.Ports) > 0 || len(spec.Volumes) > 0 || spec.Privileged || spec.Platform != "" {
		return err
	}
	if unprepared != nil {
		return unprepared
	}
	found, err := p.r.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err == nil && found.Container.Config.Labels["forge.waiting"] == "" {
		err = errors.New("what waited was not taken")
	}
	return err
}

// What is promised of a build holds for one that took a container which waited.
func TestDockerIsAnEngineWhereContainersWait(t *testing.T) {
	isAnEngine(t, func(made *docker.Engine, r *rig) engine.Engine { return prepared{made, r} })
}

func isAnEngine(t *testing.T, as func(*docker.Engine, *rig) engine.Engine) {
	t.Helper()
	r := newRig(t, docker.Config{})
	var instances []string
	enginetest.Run(t, enginetest.Config{
		Image: r.image(t), Stranger: r.image(t, "USER 4711:4711"),
		New: func(t *testing.T, forgexec, dir string) engine.Engine {
			t.Helper()
			instances = append(instances, dir)
			engine, err := docker.New(t.Context(), docker.Config{Instance: dir, Forgexec: []string{forgexec}, Log: kittest.Log(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := engine.Close(); err != nil {
					t.Error(err)
				}
			})
			return as(engine, r)
		},
		Kill: func(t *testing.T, _ engine.Engine, attempt string) {
			t.Helper()
			if _, err := r.api.ContainerKill(t.Context(), "forge-"+attempt, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
				t.Fatal(err)
			}
		},
	})
	for _, instance := range instances {
		if left := left(t.Context(), t, r.api, instance); left != "" {
			t.Errorf("left behind: %s", left)
		}
	}
}
