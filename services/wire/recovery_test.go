package wire_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler"
)

// What GitHub sent while Forge was down happens after its start, without anybody
// sending it again: from GitHub's list of deliveries, and where that tells
// nothing, from the pull requests themselves.
func TestWhatWasMissedHappensAllTheSame(t *testing.T) {
	for name, lose := range map[string]func(*githubsim.Sim){
		"deliveries that failed":     func(*githubsim.Sim) {},
		"deliveries nobody knows of": func(sim *githubsim.Sim) { sim.LoseDeliveries(1000) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hello())
			w.stays(t)
			lose(w.sim)
			w.forge(t)
			deliveries := gatewayv1.NewDeliveryServiceClient(w.dial(t, "gateway"))
			kittest.Eventually(t, patience, func() error { // once it has looked it knows when it was there
				_, err := deliveries.RecoverDeliveries(asAdmin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
				return err
			})
			w.down(t)

			merged, _ := w.propose(t, "fix", files("greeting", "hello again\n"))
			deployed := w.merge(t, merged)
			_, broken := w.propose(t, "rude", files("greeting", "go away\n"))
			if err := w.sim.WaitDeliveries(t.Context()); err != nil {
				t.Fatal(err)
			}

			w.forge(t)
			w.shows(t, broken, "forge/test", "failure")
			w.shows(t, deployed, "forge/deploy-staging", "success")
			w.promotion(t)
			w.historiesAreSound(t, broken, deployed)
		})
	}
}

// stays gives Forge an address that outlives its restarts.
func (w *world) stays(t *testing.T) {
	t.Helper()
	w.http, w.grpc = "http://"+kittest.FreeAddress(t), kittest.FreeAddress(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
}

func (w *world) forge(t *testing.T) {
	t.Helper()
	_, port, _ := strings.Cut(strings.TrimPrefix(w.http, "http://"), ":")
	w.start(t, "forge", "up", "--engine=process", "--address=127.0.0.1", "--port="+port, "--grpc-address="+w.grpc, "--external-url="+w.http)
	w.awaitUp(t)
}

// down stops all processes.
func (w *world) down(t *testing.T) {
	t.Helper()
	for _, p := range w.processes {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.exited
	}
	w.processes = nil
}

// A gateway that is killed again and again has on disk, once, and relays, every
// delivery that it answered with 200.
func TestAnsweredDeliveriesSurviveSIGKILL(t *testing.T) {
	const kills, senders = 20, 8
	w := newWorld(t, hello())
	room := receive(t)
	httpPort, grpcPort := kittest.FreePort(t), kittest.FreePort(t)
	w.http, w.grpc = fmt.Sprintf("http://127.0.0.1:%d", httpPort), fmt.Sprintf("127.0.0.1:%d", grpcPort)
	up := func() *process {
		p := w.start(t, "gateway", "--grpc-address="+w.grpc, "--address=127.0.0.1", fmt.Sprintf("--port=%d", httpPort),
			"--scheduler-url="+room.address, "--config-url="+room.address, "--reporter-url="+room.address)
		w.awaitUp(t)
		return p
	}
	var (
		answered sync.Map
		count    atomic.Int64
		stop     = make(chan struct{})
		sending  sync.WaitGroup
	)
	body := `{"action":"opened","number":1,"pull_request":{"number":1,"updated_at":"2026-01-02T03:04:05Z","head":{"ref":"x","sha":"a"},"base":{"ref":"main","sha":"b"}},` +
		`"repository":{"id":1,"name":"hello","full_name":"octo-org/hello","owner":{"login":"octo-org"}}}`
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}, Timeout: 10 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	p := up()
	for sender := range senders {
		sending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("kill-%d-%d", sender, n)
				req := webhook(t, w.http, "pull_request", id, body)
				resp, err := client.Do(req)
				if err != nil {
					continue // it is being killed
				}
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					answered.Store(id, true)
					count.Add(1)
				}
			}
		})
	}
	for kill := range kills {
		kittest.Eventually(t, patience, func() error {
			if n := count.Load(); n < int64(100*(kill+1)) {
				return fmt.Errorf("%d answered", n)
			}
			return nil
		})
		_ = p.cmd.Process.Kill()
		<-p.exited
		w.processes = nil
		p = up()
	}
	close(stop)
	sending.Wait()

	stored := map[string]int{}
	deliveries := gatewayv1.NewDeliveryServiceClient(w.dial(t, "gateway"))
	kittest.Eventually(t, patience, func() error {
		pending, err := deliveries.ListDeliveries(asAdmin(t.Context()), &gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_PENDING})
		if err == nil && len(pending.GetDeliveries()) > 0 {
			err = fmt.Errorf("%s is not relayed: %v", pending.GetDeliveries()[0].GetId(), pending.GetDeliveries()[0].GetForwards())
		}
		return err
	})
	for token := ""; ; {
		page, err := deliveries.ListDeliveries(asAdmin(t.Context()), &gatewayv1.ListDeliveriesRequest{PageSize: 500, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.GetDeliveries() {
			stored[d.GetId()]++
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	answered.Range(func(id, _ any) bool {
		if n := stored[id.(string)]; n != 1 {
			t.Errorf("%s was answered with 200 and is there %d times", id, n)
		}
		if _, got := room.got.Load(id); !got {
			t.Errorf("%s was answered with 200 and not relayed", id)
		}
		return true
	})
	t.Logf("%d deliveries answered, %d stored, %d kills", count.Load(), len(stored), kills)
}

// room is a scheduler that takes note of everything.
type room struct {
	schedulerv1.UnimplementedEventServiceServer
	address string
	got     sync.Map
}

func (r *room) ReceiveEvent(_ context.Context, req *schedulerv1.ReceiveEventRequest) (*schedulerv1.ReceiveEventResponse, error) {
	r.got.Store(req.GetEvent().GetDeliveryId(), true)
	return &schedulerv1.ReceiveEventResponse{Decision: &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted"}}, nil
}

func receive(t *testing.T) *room {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &room{address: lis.Addr().String()}
	server := rpc.NewServer(rpc.Config{Name: "scheduler", Access: scheduler.Access(), TrustLoopback: true})
	schedulerv1.RegisterEventServiceServer(server, r)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// webhook is a signed request.
func webhook(t *testing.T, url, event, id, body string) *http.Request {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	_, _ = mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/listen", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": id,
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	} {
		req.Header.Set(name, value)
	}
	return req
}
