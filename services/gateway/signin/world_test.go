package signin_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	external = "https://forge.example"
	callback = external + "/sign-in/callback"
	admin    = "adm-hush"
)

// world is a GitHub, and a Forge where people sign in with it.
type world struct {
	t     *testing.T
	sim   *githubsim.Sim
	clock *kittest.Clock
	deps  signin.Deps
	logs  *kittest.Logbook
	*signin.Service
}

func newWorld(t *testing.T, db *sqldb.DB, change func(*signin.Deps)) *world {
	t.Helper()
	key := kittest.AppKey(t)
	w := &world{t: t, clock: kittest.NewClock(time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)), logs: &kittest.Logbook{}}
	w.sim = githubsim.New(githubsim.Config{
		AppID: 7, AppKey: &key.PublicKey, Now: w.clock.Now, Permissions: map[string]string{"contents": "read", "members": "read"},
		OAuth: githubsim.OAuth{ClientID: "Iv1.forge", ClientSecret: "client-hush", CallbackURLs: []string{callback}, DeviceFlow: true},
	})
	server := httptest.NewServer(w.sim)
	t.Cleanup(func() {
		server.Close()
		w.sim.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "shop", Files: map[string]string{"a": "a"}}))
	w.sim.AddInstallation("acme")
	w.must(w.sim.SetPermission("acme", "shop", "rita", "read"))
	w.deps = signin.Deps{
		Config: signin.Config{ClientID: "Iv1.forge", ClientSecret: "client-hush", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}},
		DB:     db, AdminToken: admin, ExternalURL: external, GitHubURL: server.URL, GitHubAPIURL: server.URL,
		Log: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Tracer: noop.NewTracerProvider(), Now: w.clock.Now,
	}
	if change != nil {
		change(&w.deps)
	}
	w.Service = w.another()
	return w
}

// another is a replica of this Forge, or one that was started anew.
func (w *world) another() *signin.Service {
	w.t.Helper()
	s, err := signin.New(w.deps)
	w.must(err)
	w.t.Cleanup(s.Close)
	return s
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func onSQLite(t *testing.T) *world {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: kittest.SQLiteDir(t, "gateway", gateway.Migrations()), Room: "gateway", Migrations: gateway.Migrations()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return newWorld(t, db, nil)
}

// eachStore runs a test on SQLite, and on PostgreSQL where there is one.
func eachStore(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	kittest.DBs(t, "gateway", gateway.Migrations(), func(t *testing.T, open func() *sqldb.DB) { test(t, newWorld(t, open(), nil)) })
}

const patience = time.Minute

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		if !holds() {
			return errors.New("it does not hold")
		}
		return nil
	})
}

func count(t *testing.T, w *world, table string) (n int) {
	t.Helper()
	w.must(w.deps.DB.Read().QueryRowContext(context.WithoutCancel(t.Context()), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// called is how often GitHub was asked something.
func called(w *world, route string) (n int) {
	for _, c := range w.sim.Calls() {
		if c.Route == route {
			n++
		}
	}
	return n
}

// bearing is a request that shows a token.
func bearing(token string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v1/builds", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}
