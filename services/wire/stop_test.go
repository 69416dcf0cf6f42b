package wire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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

// stopWithin is how long a stop may take while logs are followed and a build runs, on a machine that is busy.
const stopWithin = 30 * time.Second

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

// Who asks for health is sent elsewhere before anything stops, and a delivery that
// is on its way in is still taken.
func TestDeliveryInFlightIsTakenWhileOthersAreTurnedAway(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}} {
		t.Run(d.String(), func(t *testing.T) {
			w := newWorld(t, hello())
			w.deploy(t, d)
			watch, err := grpc_health_v1.NewHealthClient(w.dial(t, "gateway")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			hears(t, "gateway", watch, grpc_health_v1.HealthCheckResponse_SERVING)

			const start, rest = `{"zen": "Keep `, `it logically awesome."}`
			body, writer := io.Pipe()
			answered := make(chan error, 1)
			go func() { answered <- ping(w.http, start+rest, body) }()
			if _, err := io.WriteString(writer, start); err != nil { // taken once the gateway reads
				t.Fatal(err)
			}
			gateway := w.processes[0]
			if err := gateway.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			hears(t, "gateway", watch, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			if _, err := io.WriteString(writer, rest); err != nil {
				t.Error(err)
			}
			writer.Close()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if <-gateway.exited; gateway.err != nil {
				t.Errorf("%s ended with %v", gateway.name, gateway.err)
			}
		})
	}
}

// ping delivers a ping whose body comes bit by bit, from when it is asked for.
func ping(forge, text string, body io.Reader) error {
	request, err := http.NewRequest(http.MethodPost, forge+"/v1/listen", body)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	mac.Write([]byte(text))
	request.Header.Set("X-Github-Event", "ping")
	request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	request.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: patience}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the delivery was answered %s", answer.Status)
	}
	return nil
}
