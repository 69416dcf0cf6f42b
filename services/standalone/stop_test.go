package standalone_test

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// stopWithin is how long a stop may take while logs are followed and a build runs.
const stopWithin = 10 * time.Second

// gated is a repository whose build waits until the file is there.
func gated(file string) map[string]string {
	return map[string]string{".forge.yml": lines(
		"image: busybox",
		"execute:",
		"  - echo waiting; while [ ! -e "+file+" ]; do sleep 0.05; done",
		"  - echo done",
	)}
}

// SIGTERM ends each process soon, cleanly and not without a word; the build goes on.
func TestStopIsAnnouncedAndCostsABuildNothing(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}} {
		t.Run(d.String(), func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate")
			w := newWorld(t, gated(gate))
			w.deploy(t, d)
			w.awaitServing(t)
			_, sha := w.propose(t, "change", files("greeting", "hello\n"))
			page := w.shows(t, sha, "forge/test", "pending").TargetURL
			followed, err := http.Get(page + "/log?follow")
			if err != nil {
				t.Fatal(err)
			}
			defer followed.Body.Close()
			build := path.Base(page)
			follow, err := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).WatchLog(t.Context(),
				&schedulerv1.WatchLogRequest{BuildId: build, Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			for said := ""; !strings.Contains(said, "waiting\n"); {
				part, err := follow.Recv()
				if err != nil {
					t.Fatalf("follow the log: %v, after %q", err, said)
				}
				said += string(part.GetData())
			}
			watches := map[string]grpc_health_v1.Health_WatchClient{}
			for _, room := range []string{"gateway", "scheduler", "reporter", "config"} {
				watches[room], err = grpc_health_v1.NewHealthClient(w.dial(t, room)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
				if err != nil {
					t.Fatal(err)
				}
				hears(t, room, watches[room], grpc_health_v1.HealthCheckResponse_SERVING)
			}

			begin := time.Now()
			for _, p := range w.processes {
				if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
			for _, p := range w.processes {
				<-p.exited
				if took := time.Since(begin); p.err != nil || took > stopWithin {
					t.Errorf("%s ended after %v: %v", p.name, took, p.err)
				}
			}
			if _, err := follow.Recv(); !fault.Is(err, fault.Unavailable) {
				t.Errorf("who follows the log is told %v", err)
			}
			for room, watch := range watches {
				hears(t, room, watch, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			}

			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, p := range w.processes {
				p.begin(t)
			}
			w.awaitUp(t)
			if log := w.log(t, w.shows(t, sha, "forge/test", "success").TargetURL); !strings.HasSuffix(log, "waiting\ndone\n") {
				t.Errorf("the build printed %q", log)
			}
		})
	}
}

func hears(t *testing.T, room string, watch grpc_health_v1.Health_WatchClient, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	if said, err := watch.Recv(); err != nil || said.GetStatus() != want {
		t.Errorf("health of %s: %v, %v; want %s", room, said.GetStatus(), err, want)
	}
}
