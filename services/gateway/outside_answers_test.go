package gateway

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// firstTry waits until a delivery was tried at its first receiver.
func (w *world) firstTry(id string) *gatewayv1.Forward {
	w.t.Helper()
	var way *gatewayv1.Forward
	kittest.Eventually(w.t, patience, func() error {
		resp, err := w.deliveries().GetDelivery(admin(w.t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: id})
		if err != nil {
			return err
		}
		if way = resp.GetDelivery().GetForwards()[0]; way.GetError() == "" && way.GetDecision() == nil {
			return errors.New("not tried")
		}
		return nil
	})
	return way
}

func TestWhatAReceiverAnswersDecides(t *testing.T) {
	t.Parallel()
	elsewhere := newOutside(t, nil)
	zeros := make([]byte, 1<<20)
	for name, c := range map[string]struct {
		answer     http.HandlerFunc
		text, fail string
	}{
		"no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "accepted: 204 No Content", ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no such label\nsecond", http.StatusUnprocessableEntity)
		}, "refused: 422 Unprocessable Entity: no such label", ""},
		"not yet there": {http.NotFound, "", "it answered 404 Not Found: 404 page not found"},
		"overworked": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1800")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "", "it answered 429 Too Many Requests"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "", "it answered 307 Temporary Redirect"},
		"10 GB": {func(w http.ResponseWriter, _ *http.Request) {
			for range 10 << 10 {
				if _, err := w.Write(zeros); err != nil {
					return
				}
			}
		}, "accepted: 200 OK", ""},
		"a body that never ends": {func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("taken"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "accepted: 200 OK: taken", ""},
		"headers without end": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", strings.Repeat("x", 1<<20)) }, "", "server response headers exceeded 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onSQLite(t, forwardingTo(newOutside(t, c.answer).to("judge")))
			w.post(hook{event: "issues", id: "a", body: issue})
			way := w.firstTry("a")
			if way.GetDecision().GetText() != c.text || !strings.Contains(way.GetError(), c.fail) || (c.fail == "") != (way.GetError() == "") {
				t.Errorf("%v", way)
			}
			if left := time.Until(way.GetNextTryTime().AsTime()); name == "overworked" && left < 20*time.Minute {
				t.Errorf("it is asked again in %v", left)
			}
		})
	}
	t.Cleanup(func() {
		if len(elsewhere.all()) > 0 {
			t.Error("a redirect was followed")
		}
	})
}

func TestAReceiverThatNeverAnswersDelaysNobody(t *testing.T) {
	held := make(chan struct{})
	o := newOutside(t, func(http.ResponseWriter, *http.Request) { <-held })
	well := newOutside(t, nil)
	w := onSQLite(t, forwardingTo(o.to("hangs"), well.to("well")))
	const n = 2 * outsideWorkers
	for i := range n {
		w.post(hook{event: "push", id: string(rune('a' + i)), body: sample(t, "push")})
	}
	kittest.Eventually(t, patience, func() error {
		if len(well.all()) != n || len(w.rooms.received("scheduler")) != n {
			return errors.New("not all came")
		}
		return nil
	})
	close(held)
	for i := range n {
		w.ends(string(rune('a' + i)))
	}
}

// receivesEvents is a receiver of one's own over gRPC.
type receivesEvents struct {
	eventv1.UnimplementedEventServiceServer
	mu  sync.Mutex
	got []*eventv1.ReceiveEventRequest
}

func (r *receivesEvents) ReceiveEvent(_ context.Context, req *eventv1.ReceiveEventRequest) (*eventv1.ReceiveEventResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, req)
	switch req.GetEvent().GetDeliveryId() {
	case "refused":
		return nil, status.Error(codes.InvalidArgument, "not\x1b[2J mine\nat all")
	case "again":
		if len(r.got) < 4 {
			return nil, status.Error(codes.NotFound, "not yet\x1b[2J")
		}
	}
	return &eventv1.ReceiveEventResponse{Text: "queued\nas 7"}, nil
}

func TestAReceiverOverGRPC(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, r := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20)), &receivesEvents{}
	eventv1.RegisterEventServiceServer(server, r)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(lis) })
	defer serving.Wait()
	defer server.Stop()
	w := onSQLite(t, forwardingTo(Receiver{Name: "typed", URL: "grpc://" + lis.Addr().String(), Secret: outsideSecret}))
	large := bytes.Replace(issue, []byte("<b>"), bytes.Repeat([]byte("x"), 8<<20), 1)
	for _, c := range []struct {
		id, event string
		body      []byte
		want      string
	}{
		{"taken", "issues", large, "typed: NOTED accepted: queued as 7"},
		{"refused", "issues", issue, "typed: REFUSED refused: not [2J mine at all"},
		{"again", "pull_request", sample(t, "pull_request"), "scheduler: NOTED noted by scheduler\ntyped: NOTED accepted: queued as 7"},
	} {
		w.post(hook{event: c.event, id: c.id, body: c.body})
		if got := told(w.ends(c.id)); got != c.want {
			t.Errorf("%s: %s", c.id, got)
		}
		last := r.got[len(r.got)-1]
		if !bytes.Equal(last.GetPayload(), c.body) || last.GetHeaders()["x-hub-signature-256"] != signBy(outsideSecret, c.body) ||
			last.GetHeaders()["x-github-delivery"] != c.id || last.GetEvent().GetRepository() == nil {
			t.Errorf("%s: it got %v", c.id, last.GetHeaders())
		}
	}
	if r.got[3].GetEvent().GetPullRequest() == nil {
		t.Errorf("no typed event: %v", r.got[3].GetEvent())
	}
	w.stop() // before the server, whose connections are drained
}

func TestAFileOfReceiversIsChecked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"key": "hush\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(text string) ([]Receiver, error) {
		path := filepath.Join(dir, "receivers.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadReceivers(path)
	}
	got, err := read("- {name: triage, url: 'https://u:p@triage.example.com/x?token=y', events: [issues], repositories: ['acme/*'], secret_file: key}\n" +
		"- {name: audit, url: 'grpcs://audit.example.com:9443', secret_file: " + filepath.Join(dir, "key") + "}\n")
	if err != nil || len(got) != 2 || got[0].Secret != "hush" || got[0].Events[0] != "issues" || got[1].Secret != "hush" {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := read("# none yet\n"); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	if got, err := ReadReceivers(""); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	for text, want := range map[string]string{
		"- {name: Triage, url: 'https://x', secret_file: key}":                                             "expected up to 40 lower-case letters",
		"- {name: scheduler, url: 'https://x', secret_file: key}":                                          "that is a service of Forge",
		"- {name: a, url: 'https://x', secret_file: key}\n- {name: a, url: 'https://x', secret_file: key}": "stands there twice",
		"- {name: a, url: 'https://x'}":                                                                    "secret_file is missing",
		"- {name: a, url: 'https://x', secret_file: empty}":                                                "secret_file is missing",
		"- {name: a, url: 'https://x', secret_file: nowhere}":                                              "no such file",
		"- {name: a, url: 'ftp://tok3n@x', secret_file: key}":                                              "url is none that begins",
		"- {name: a, url: '//tok3n', secret_file: key}":                                                    "url is none that begins",
		"- {name: a, url: 'grpc://x', secret_file: key}":                                                   "expected grpc://HOST:PORT",
		"- {name: a, url: 'https://x', repositories: ['[a'], secret_file: key}":                            "is no pattern",
		"- {name: a, url: 'https://x', repos: [a], secret_file: key}":                                      "repos",
		"name: a": "receivers",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "tok3n") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
