package swarm_test

import (
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
	"github.com/forge-ci/forge/services/scheduler/engine/enginetest"
	"github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

func TestSwarmIsAnEngine(t *testing.T) {
	s := kittest.NewSwarm(t, 1, 0)
	api := s.Nodes[0].API
	image := ""
	var instances []string
	enginetest.Run(t, enginetest.Config{
		Image: s.Image(t), Stranger: s.Image(t, "USER 4711:4711"), Host: s.Address,
		New: func(t *testing.T, forgexec, dir string) engine.Engine {
			t.Helper()
			if image == "" {
				image = forgexecImage(t, s, forgexec)
			}
			instances = append(instances, dir)
			engine, err := swarm.New(t.Context(), swarm.Config{Host: s.Nodes[0].URL, Instance: dir, Image: image, Hold: time.Millisecond, Log: kittest.Log(t)})
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
			found, err := api.ContainerList(t.Context(), client.ContainerListOptions{Filters: client.Filters{}.Add("label", dockerapi.AttemptLabel+"="+attempt)})
			if err != nil || len(found.Items) != 1 {
				t.Fatalf("%d containers of %s: %v", len(found.Items), attempt, err)
			}
			if _, err := api.ContainerKill(t.Context(), found.Items[0].ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
				t.Fatal(err)
			}
		},
	})
	for _, instance := range instances {
		if left := left(t.Context(), t, api, instance); left != "" {
			t.Errorf("left behind: %s", left)
		}
	}
}
