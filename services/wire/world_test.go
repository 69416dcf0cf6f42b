package wire_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

const (
	owner, repo   = "octo-org", "hello"
	appID         = 7
	adminToken    = "the-admin-token"
	webhookSecret = "the-webhook-secret"
	secretsKey    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	patience      = 2 * time.Minute
)

// world is a simulated GitHub with one repository, and the Forge that serves it.
type world struct {
	*server
	sim      *githubsim.Sim
	patience time.Duration // how long GitHub may take to show something; the constant patience if 0

	planned, told atomic.Int64 // how often GitHub was asked for a file, and told a status
}

// server is a Forge, in one process or several.
type server struct {
	github string // the URL of the GitHub that it serves
	dir    string // everything of this Forge
	key    string // file with the App's private key

	http, grpc string            // where the gateway is
	apart      map[string]string // where each room's gRPC is; nil in one process
	tls        *tls.Config       // to call the rooms; nil without certificates
	env        []string          // further settings
	processes  []*process
}

// newWorld makes the GitHub: an App, its installation, and a repository with
// these files and a production branch.
func newWorld(t testing.TB, files map[string]string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := processesUnder(dir) // builds outlive Forge, and are not to outlive the test
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	})
	key := kittest.AppKey(t)
	w := &world{server: &server{dir: dir, key: filepath.Join(dir, "app.pem")}}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(w.key, block, 0o600); err != nil {
		t.Fatal(err)
	}
	w.sim = githubsim.New(githubsim.Config{AppID: appID, AppKey: &key.PublicKey, Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.sim.ServeHTTP(rw, r)
		switch {
		case strings.Contains(r.URL.Path, "/contents/"):
			w.planned.Add(1)
		case strings.Contains(r.URL.Path, "/statuses/"):
			w.told.Add(1)
		}
	}))
	t.Cleanup(func() { server.Close(); w.sim.Close() })
	w.github = server.URL
	w.sim.SetURL(server.URL)
	w.sim.AddInstallation(owner)
	if err := w.sim.AddRepository(githubsim.Repository{Owner: owner, Name: repo, Files: files}); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.CreateBranch(owner, repo, "production", "main"); err != nil {
		t.Fatal(err)
	}
	return w
}

// deployment is a way to run Forge.
type deployment struct {
	apart        bool // four processes, else one
	postgres     bool // else SQLite
	pooler       bool // before PostgreSQL
	certificates bool // by which services apart know each other, else tokens
	replicas     int  // of each service, apart, on PostgreSQL and a bucket, and known by names; 0: one
}

func (d deployment) String() string {
	processes, database := "one process", "SQLite"
	if d.apart {
		processes = "four processes"
	}
	if d.postgres {
		database = "PostgreSQL"
	}
	return processes + " on " + database
}

// eachDeployment runs the test once for each way to run Forge.
func eachDeployment(t *testing.T, test func(*testing.T, deployment)) {
	t.Helper()
	for _, d := range []deployment{{}, {postgres: true}, {apart: true}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			test(t, d)
		})
	}
}

// dial connects to a room.
func (s *server) dial(t testing.TB, room string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(cmp.Or(s.apart[room], s.grpc), rpc.Peer{TLS: s.tls})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func asAdmin(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+adminToken)
}

// propose opens a pull request into main with this change and returns its number
// and head.
func (w *world) propose(t testing.TB, branch string, change githubsim.Commit) (number int, sha string) {
	t.Helper()
	sha = w.branch(t, branch, change)
	return w.open(t, branch), sha
}

// branch makes a branch with this change and returns its head.
func (w *world) branch(t testing.TB, name string, change githubsim.Commit) (sha string) {
	t.Helper()
	if err := w.sim.CreateBranch(owner, repo, name, "main"); err != nil {
		t.Fatal(err)
	}
	return w.push(t, name, change)
}

// open opens a pull request into main.
func (w *world) open(t testing.TB, branch string) (number int) {
	t.Helper()
	number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "Change " + branch, Head: branch, Base: "main"})
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func (w *world) push(t testing.TB, branch string, change githubsim.Commit) (sha string) {
	t.Helper()
	sha, err := w.sim.Commit(owner, repo, branch, change)
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

func (w *world) merge(t testing.TB, number int) (sha string) {
	t.Helper()
	sha, err := w.sim.Merge(owner, repo, number)
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

// shows waits until GitHub shows this state, and returns the status.
func (w *world) shows(t testing.TB, sha, context, state string) (shown githubsim.Status) {
	t.Helper()
	kittest.Eventually(t, cmp.Or(w.patience, patience), func() error {
		statuses, err := w.sim.Statuses(owner, repo, sha)
		if err != nil {
			return err
		}
		shown = statuses[context]
		if shown.State != state {
			return fmt.Errorf("%s on %.7s shows %q (%s), want %s", context, sha, shown.State, shown.Description, state)
		}
		return nil
	})
	return shown
}

// promotion waits for the pull request into production.
func (w *world) promotion(t testing.TB) (found githubsim.PullRequest) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		pulls, err := w.sim.PullRequests(owner, repo)
		if err != nil {
			return err
		}
		var open []githubsim.PullRequest
		for _, p := range pulls {
			if p.Base == "production" && p.State == "open" {
				open = append(open, p)
			}
		}
		if len(open) != 1 {
			return fmt.Errorf("%d pull requests into production are open, want one", len(open))
		}
		found = open[0]
		return nil
	})
	return found
}

func files(nameAndContent ...string) githubsim.Commit {
	change := githubsim.Commit{Files: map[string]string{}}
	for pair := range slices.Chunk(nameAndContent, 2) {
		change.Files[pair[0]] = pair[1]
	}
	return change
}

func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }
