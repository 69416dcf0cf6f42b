package docker_test

import (
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
)

func TestDockerIsAnEngine(t *testing.T) {
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
			return engine
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
