package reporter

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMain(m *testing.M) {
	if os.Getenv(childAt) != "" {
		os.Exit(beReporter())
	}
	goleak.VerifyTestMain(m)
}

const patience = time.Minute

// world is a GitHub with octo/shop, and a config that hands out its tokens.
type world struct {
	t            testing.TB
	sim          *githubsim.Sim
	app          *github.Client
	clock        *kittest.Clock
	github       *httptest.Server
	config       *grpc.ClientConn
	repository   *eventv1.Repository
	installation int64
	sha          string
	adjust       func(*Deps) // of a reporter that is made; nil: nothing

	expires time.Time // when the tokens of config do; zero: in a day, as none does that was just made

	mu    sync.Mutex
	way   func(w http.ResponseWriter, r *http.Request) bool // what happens on the way to GitHub; true: it is over there
	mint  func(*configv1.CreateTokenRequest) (string, error)
	asked []*configv1.CreateTokenRequest
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWithin(t, githubsim.Limits{})
}

// newWorldWithin is one where GitHub has limits.
func newWorldWithin(t testing.TB, limits githubsim.Limits) *world {
	t.Helper()
	w := &world{t: t, clock: kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
	w.sim = githubsim.New(githubsim.Config{AppID: 7, AppKey: &kittest.AppKey(t).PublicKey, Limits: limits})
	t.Cleanup(w.sim.Close)
	w.installation = w.sim.AddInstallation("octo")
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "octo", Name: "shop", Files: map[string]string{"README.md": "shop"}}))
	sha, err := w.sim.Head("octo", "shop", "main")
	w.must(err)
	w.sha = sha
	w.github = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		way := w.way
		w.mu.Unlock()
		if way == nil || !way(rw, r) {
			w.sim.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(w.github.Close)

	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	app, err := kitgithub.NewApp(kitgithub.Config{APIURL: w.github.URL, Base: transport}, kitgithub.App{
		ID: 7, Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(kittest.AppKey(t))}),
	})
	w.must(err)
	w.app = app
	token := w.mintFor(w.installation)

	reader := github.NewClient(&http.Client{Transport: transport}).WithAuthToken(token)
	reader.BaseURL = app.BaseURL
	found, _, err := reader.Repositories.Get(t.Context(), "octo", "shop")
	w.must(err)
	w.repository = &eventv1.Repository{Id: found.GetID(), Owner: "octo", Name: "shop"}

	server := rpc.NewServer(rpc.Config{Name: "config", Access: map[string]rpc.Access{
		configv1.TokenService_CreateToken_FullMethodName: {Rooms: []string{"reporter"}, NoAdmin: true},
	}})
	configv1.RegisterTokenServiceServer(server, tokenServer{world: w})
	w.config = w.serve(server, "reporter", nil)
	return w
}

// serve runs a server on a pipe and dials it as a room.
func (w *world) serve(server *rpc.Server, room string, tracer trace.TracerProvider) *grpc.ClientConn {
	w.t.Helper()
	pipe := rpc.NewPipe()
	conn, err := pipe.Dial(room, tracer)
	w.must(err)
	w.background(func(ctx context.Context) error { return server.Serve(ctx, pipe) })
	w.t.Cleanup(func() { w.must(conn.Close()) })
	return conn
}

// background runs until the test ends, or the returned function is called.
func (w *world) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) onTheWay(way func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.way = way
}

func (w *world) minting(mint func(*configv1.CreateTokenRequest) (string, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mint = mint
}

// mintFor has config hand out a token of an installation.
func (w *world) mintFor(installation int64) string {
	w.t.Helper()
	token, _, err := w.app.Apps.CreateInstallationToken(w.t.Context(), installation, nil)
	w.must(err)
	w.minting(func(*configv1.CreateTokenRequest) (string, error) { return token.GetToken(), nil })
	return token.GetToken()
}

// expiry is that of the tokens that config hands out.
func (w *world) expiry() time.Time {
	if w.expires.IsZero() {
		return time.Now().Add(24 * time.Hour)
	}
	return w.expires
}

type tokenServer struct {
	configv1.UnimplementedTokenServiceServer

	world *world
}

func (t tokenServer) CreateToken(_ context.Context, req *configv1.CreateTokenRequest) (*configv1.CreateTokenResponse, error) {
	t.world.mu.Lock()
	defer t.world.mu.Unlock()
	t.world.asked = append(t.world.asked, req)
	token, err := t.world.mint(req)
	return &configv1.CreateTokenResponse{Token: token, ExpireTime: timestamppb.New(t.world.expiry())}, err
}

func (w *world) reporter(db *sqldb.DB) *Service {
	w.t.Helper()
	deps := Deps{
		DB: db, Config: w.config, GitHubAPIURL: w.github.URL, Log: kittest.Log(w.t), Now: w.clock.Now,
		Random: func() float64 { return 0 },
	}
	if w.adjust != nil {
		w.adjust(&deps)
	}
	s, err := New(deps)
	w.must(err)
	return s
}

func (w *world) build(state schedulerv1.Build_State) *schedulerv1.Build {
	return &schedulerv1.Build{
		Id: "b1", Repository: w.repository, InstallationId: w.installation, Sha: w.sha, Context: "forge/test",
		State: state, Url: "http://forge.example/builds/b1",
	}
}

func (w *world) report(s *Service, version int64, b *schedulerv1.Build) {
	w.t.Helper()
	_, err := s.Report(w.t.Context(), &reporterv1.ReportRequest{Build: b, Version: version})
	w.must(err)
}

func (w *world) event(s *Service, action string, e *eventv1.Event) *eventv1.Decision {
	w.t.Helper()
	e.Action, e.InstallationId = action, w.installation
	resp, err := s.ReceiveEvent(w.t.Context(), &reporterv1.ReceiveEventRequest{Event: e})
	w.must(err)
	return resp.GetDecision()
}

func (w *world) target(s *Service) *reporterv1.Target {
	w.t.Helper()
	resp, err := s.ListTargets(w.t.Context(), &reporterv1.ListTargetsRequest{})
	w.must(err)
	if len(resp.GetTargets()) != 1 {
		w.t.Fatalf("%d targets, want 1", len(resp.GetTargets()))
	}
	return resp.GetTargets()[0]
}

// reaches waits for the only target to be in a state.
func (w *world) reaches(s *Service, state reporterv1.Target_State) *reporterv1.Target {
	w.t.Helper()
	var found *reporterv1.Target
	kittest.Eventually(w.t, patience, func() error {
		if found = w.target(s); found.GetState() != state {
			return fmt.Errorf("target is %v", found)
		}
		return nil
	})
	return found
}

// history is the states and texts that GitHub was told, oldest first.
func (w *world) history() []string {
	w.t.Helper()
	told, err := w.sim.StatusHistory("octo", "shop", w.sha)
	w.must(err)
	var list []string
	for _, st := range told {
		list = append(list, st.State+": "+st.Description)
	}
	return list
}

func (w *world) wantHistory(want ...string) {
	w.t.Helper()
	if got := w.history(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("GitHub was told %q, want %q", got, want)
	}
}

// like is a build like b in another state.
func like(b *schedulerv1.Build, state schedulerv1.Build_State) *schedulerv1.Build {
	return &schedulerv1.Build{
		Id: b.GetId(), Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sha: b.GetSha(),
		Context: b.GetContext(), Url: b.GetUrl(), State: state, StepCount: 1,
	}
}

// onSQLite runs a test on the kind of database that most have, for what is the
// same on each.
func onSQLite(t *testing.T, test func(t *testing.T, w *world, open func() *sqldb.DB)) {
	t.Helper()
	test(t, newWorld(t), func() *sqldb.DB { return sqlite(t) })
}

// databases runs a test on each kind of database.
func databases(t *testing.T, test func(t *testing.T, w *world, open func() *sqldb.DB)) {
	t.Helper()
	kittest.DBs(t, "reporter", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		test(t, newWorld(t), open)
	})
}

// sqlite opens an empty database.
func sqlite(t testing.TB) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: kittest.SQLiteDir(t, "reporter", Migrations()), Room: "reporter", Migrations: Migrations(), Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// told has a reporter run until GitHub knows all that was reported, and stop.
func (w *world) publishAll(s *Service) {
	w.t.Helper()
	stop := w.background(s.Run)
	kittest.Eventually(w.t, patience, func() error {
		w.tick(s)
		for _, t := range w.targets(s) {
			if t.GetState() != told {
				return fmt.Errorf("target is %v", t)
			}
		}
		return nil
	})
	stop()
}

// tick moves the clock on, unless somebody is telling: that would cost the lease.
func (w *world) tick(s *Service) {
	w.t.Helper()
	var busy int
	w.must(s.store.db.Read().QueryRowContext(context.WithoutCancel(w.t.Context()), `SELECT count(*) FROM targets WHERE lease > 0`).Scan(&busy))
	if busy == 0 { // as far as one can see; small steps for a claim that runs
		w.clock.Advance(time.Second / 4)
	}
	s.wake()
}

func (w *world) targets(s *Service) []*reporterv1.Target {
	w.t.Helper()
	resp, err := s.ListTargets(context.WithoutCancel(w.t.Context()), &reporterv1.ListTargetsRequest{PageSize: rpc.LargestPage})
	w.must(err)
	return resp.GetTargets()
}

// changes counts the calls that changed something on GitHub since the given one.
func (w *world) changes(since int) int {
	n := 0
	for _, c := range w.sim.Calls()[since:] {
		if c.Method != http.MethodGet && c.Installation != 0 {
			n++
		}
	}
	return n
}
