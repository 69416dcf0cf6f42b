package config

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	appID    = 7
	patience = time.Minute
)

// world is a GitHub with the repository acme/app, and config in front of it,
// called as other rooms call it. Whatever a test does, no log, no span and no
// error holds a secret.
type world struct {
	t       testing.TB
	sim     *githubsim.Sim
	front   *front
	deps    Deps
	service *Service
	clock   *kittest.Clock
	log     *kittest.Logbook
	pipe    *rpc.Pipe
	repo    *eventv1.Repository
	install int64
}

func keyPEM(key *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

const goodFile = "image: busybox\nexecute: [make test]\n"

func newWorld(t testing.TB, change ...func(*githubsim.Config, *Deps)) *world {
	t.Helper()
	// The clock runs apart from GitHub's, which checks the App's own tokens by it.
	w := &world{t: t, clock: kittest.NewClock(time.Now()), log: &kittest.Logbook{}}
	sim := githubsim.Config{AppID: appID, AppKey: &kittest.AppKey(t).PublicKey}
	w.deps = Deps{
		GitHub: GitHub{App: kitgithub.App{ID: appID, Key: keyPEM(kittest.AppKey(t))}},
		Log:    slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:    w.clock.Now,
	}
	spans := tracetest.NewInMemoryExporter()
	w.deps.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	for _, c := range change {
		c(&sim, &w.deps)
	}
	w.sim = githubsim.New(sim)
	t.Cleanup(w.sim.Close)
	w.front = &front{sim: w.sim}
	server := httptest.NewServer(w.front)
	t.Cleanup(server.Close)
	w.deps.GitHub.APIURL, w.deps.GitHub.PagesURL = server.URL, server.URL
	w.install = w.sim.AddInstallation("acme")
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "app", Files: map[string]string{".forge.yml": goodFile}}); err != nil {
		t.Fatal(err)
	}
	w.repo = &eventv1.Repository{Id: w.repositoryID("app"), Owner: "acme", Name: "app"}
	w.start()
	t.Cleanup(func() {
		for _, secret := range []string{"ghs_", "PRIVATE KEY", "eyJ", "Bearer", "token=", string(w.deps.GitHub.App.Key[50:100])} {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("the log holds %q:\n%s", secret, w.log)
			}
			if strings.Contains(fmt.Sprintf("%+v", spans.GetSpans()), secret) {
				t.Errorf("a span holds %q", secret)
			}
		}
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

// start serves config on a pipe, as if started anew on the same data.
func (w *world) start() {
	w.t.Helper()
	service, err := New(w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "config", Access: Access(), AdminToken: "admin", Log: w.deps.Log, Tracer: w.deps.Tracer})
	service.Register(server)
	pipe := rpc.NewPipe()
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.service, w.pipe = service, pipe
}

func (w *world) as(room string) *grpc.ClientConn {
	w.t.Helper()
	conn, err := w.pipe.Dial(room, w.deps.Tracer) // its span holds the error
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) repositoryID(name string) int64 {
	w.t.Helper()
	app, err := New(w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := app.clients.client(w.t.Context(), grant{owner: "acme", name: name, room: roomConfig})
	if err != nil {
		w.t.Fatal(err)
	}
	repository, _, err := client.Repositories.Get(w.t.Context(), "acme", name)
	if err != nil {
		w.t.Fatal(err)
	}
	return repository.GetID()
}

func (w *world) head() string {
	w.t.Helper()
	sha, err := w.sim.Head("acme", "app", "main")
	if err != nil {
		w.t.Fatal(err)
	}
	return sha
}

func (w *world) commit(change githubsim.Commit) string {
	w.t.Helper()
	sha, err := w.sim.Commit("acme", "app", "main", change)
	if err != nil {
		w.t.Fatal(err)
	}
	return sha
}

// hasToken gives config a token that GitHub knows everywhere.
func (w *world) hasToken() {
	w.t.Helper()
	if _, err := w.service.clients.client(w.t.Context(), grant{repository: w.repo.GetId(), owner: "acme", name: "app", room: roomConfig}); err != nil {
		w.t.Fatal(err)
	}
	w.clock.Advance(kitgithub.TokenLag)
}

func (w *world) token(room, rejected string) (*configv1.CreateTokenResponse, error) {
	return configv1.NewTokenServiceClient(w.as(room)).CreateToken(w.t.Context(),
		&configv1.CreateTokenRequest{Repository: w.repo, RejectedToken: rejected})
}

func (w *world) config(sha string) (*configv1.GetBuildConfigResponse, error) {
	return configv1.NewBuildConfigServiceClient(w.as("scheduler")).GetBuildConfig(w.t.Context(),
		&configv1.GetBuildConfigRequest{Repository: w.repo, Sha: sha})
}

func (w *world) source(sha string) ([]byte, error) {
	stream, err := configv1.NewSourceServiceClient(w.as("scheduler")).GetSource(w.t.Context(),
		&configv1.GetSourceRequest{Repository: w.repo, InstallationId: w.install, Sha: sha})
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if n := len(part.GetData()); n == 0 || n > 64<<10 {
			w.t.Errorf("a chunk of %d bytes", n)
		}
		all = append(all, part.GetData()...)
	}
}

func (w *world) event(e *eventv1.Event) (*eventv1.Decision, error) {
	answer, err := configv1.NewEventServiceClient(w.as("gateway")).ReceiveEvent(w.t.Context(), &configv1.ReceiveEventRequest{Event: e})
	return answer.GetDecision(), err
}

// calls counts what GitHub was asked whose "METHOD /path" contains text.
func (w *world) calls(text string) int {
	n := 0
	for _, c := range w.sim.Calls() {
		if strings.Contains(c.Method+" "+c.Path, text) {
			n++
		}
	}
	return n
}

func (w *world) wantFault(err error, kind fault.Kind, text string) {
	w.t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
		w.t.Errorf("got %v (%v), want %v with %q", err, fault.KindOf(err), kind, text)
	}
}

// front stands before the sim and may answer, or break, in its place.
type front struct {
	sim http.Handler

	mu  sync.Mutex
	act func(w http.ResponseWriter, r *http.Request) (done bool)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	act := f.act
	f.mu.Unlock()
	if act == nil || !act(w, r) {
		f.sim.ServeHTTP(w, r)
	}
}

func (f *front) set(act func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.act = act
}

// answers has requests whose path contains text answered with a status and
// GitHub's kind of body.
func (f *front) answers(text string, status int, message string, header ...string) {
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, text) {
			return false
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"message": %q, "status": "%d"}`, message, status)
		return true
	})
}

// cuts breaks the connection after some bytes of what the sim answers to
// requests whose path contains text.
func (f *front) cuts(text string, after int) {
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, text) {
			return false
		}
		answer := httptest.NewRecorder()
		f.sim.ServeHTTP(answer, r)
		w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes()[:min(after, answer.Body.Len()-1)])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
}
