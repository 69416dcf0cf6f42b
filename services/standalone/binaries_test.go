package standalone_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	settleWithin  = 30 * time.Second
)

// binDir holds the binaries, which the first test that needs them builds.
var binDir string

var buildBinaries = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", binDir, "../cmd/...").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "forge-bin"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binDir)
	os.Exit(code)
}

// world is a simulated GitHub with one repository, and the Forge that serves it.
type world struct {
	sim    *githubsim.Sim
	github string
	dir    string // data directory
	key    string // file with the App's private key

	http, grpc string   // where the gateway is
	env        []string // further settings
	processes  []*process
}

// process is one running binary.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
	output *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newWorld makes the GitHub: an App, its installation, and a repository with
// these files and a production branch.
func newWorld(t *testing.T, files map[string]string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir, key: filepath.Join(dir, "app.pem")}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(w.key, block, 0o600); err != nil {
		t.Fatal(err)
	}
	w.sim = githubsim.New(githubsim.Config{AppID: appID, AppKey: &key.PublicKey, Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(w.sim)
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
	apart    bool // four processes, else one
	postgres bool // else SQLite
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

// deploy starts Forge in the given way, waits until it answers and points
// GitHub's webhook there.
func (w *world) deploy(t *testing.T, d deployment) {
	t.Helper()
	if d.postgres {
		w.env = append(w.env, "FORGE_DATABASE_URL="+kittest.PostgresURL(t))
	}
	if !d.apart {
		w.up(t)
		return
	}
	w.apart(t)
}

// apart starts the four services, the gateway first: any order must do.
func (w *world) apart(t *testing.T) {
	t.Helper()
	httpPort := freePort(t)
	w.http = fmt.Sprintf("http://127.0.0.1:%d", httpPort)
	address := map[string]string{}
	for _, room := range []string{"gateway", "scheduler", "reporter", "config"} {
		address[room] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	w.grpc = address["gateway"]
	tokens := "FORGE_ROOM_TOKENS=gateway=its-token,scheduler=their-token,reporter=our-token"
	w.env = append(w.env, tokens, "FORGE_EXTERNAL_URL="+w.http, "FORGE_ENGINE=process",
		"FORGE_CONFIG_URL="+address["config"], "FORGE_SCHEDULER_URL="+address["scheduler"], "FORGE_REPORTER_URL="+address["reporter"])
	w.start(t, "gateway", "--grpc-address="+address["gateway"], "--room-token=its-token", "--address=127.0.0.1", fmt.Sprintf("--port=%d", httpPort))
	w.start(t, "scheduler", "--grpc-address="+address["scheduler"], "--room-token=their-token")
	w.start(t, "reporter", "--grpc-address="+address["reporter"], "--room-token=our-token")
	w.start(t, "config", "--grpc-address="+address["config"])
	w.awaitUp(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
}

// up starts `forge up`, waits until it answers and points GitHub's webhook there.
func (w *world) up(t *testing.T) {
	t.Helper()
	httpPort, grpcPort := freePort(t), freePort(t)
	w.http, w.grpc = fmt.Sprintf("http://127.0.0.1:%d", httpPort), fmt.Sprintf("127.0.0.1:%d", grpcPort)
	w.start(t, "forge", "up", "--engine=process", "--address=127.0.0.1", fmt.Sprintf("--port=%d", httpPort), "--grpc-address="+w.grpc,
		"--external-url="+w.http)
	w.awaitUp(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
}

// start starts a binary with the settings that all share in its environment.
func (w *world) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, cmd: exec.Command(filepath.Join(binDir, name), args...), exited: make(chan struct{}), output: &lockedBuffer{}}
	p.cmd.Dir = w.dir
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"FORGE_DATA_DIR=" + filepath.Join(w.dir, "forge-data"), "FORGE_ADMIN_TOKEN=" + adminToken,
		"FORGE_WEBHOOK_SECRETS=" + webhookSecret, "FORGE_WEBHOOK_ALLOWED_IPS=any",
		fmt.Sprintf("FORGE_GITHUB_APP_ID=%d", appID), "FORGE_GITHUB_PRIVATE_KEY_FILE=" + w.key,
		"FORGE_GITHUB_API_URL=" + w.github, "FORGE_GITHUB_URL=" + w.github,
	}, w.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	w.processes = append(w.processes, p)
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-p.exited:
		case <-time.After(settleWithin):
			_ = p.cmd.Process.Kill()
			<-p.exited
			t.Errorf("%s did not stop", name)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.output)
		}
	})
	return p
}

func (w *world) awaitUp(t *testing.T) {
	t.Helper()
	kittest.Eventually(t, settleWithin, func() error {
		for _, p := range w.processes {
			select {
			case <-p.exited:
				t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.output)
			default:
			}
		}
		answer, err := http.Get(w.http + "/v1/status")
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("/v1/status answers %s", answer.Status)
		}
		return nil
	})
}

// dial connects to the gateway's gRPC address.
func (w *world) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(w.grpc, rpc.Peer{})
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
func (w *world) propose(t *testing.T, branch string, change githubsim.Commit) (number int, sha string) {
	t.Helper()
	if err := w.sim.CreateBranch(owner, repo, branch, "main"); err != nil {
		t.Fatal(err)
	}
	sha = w.push(t, branch, change)
	number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "Change " + branch, Head: branch, Base: "main"})
	if err != nil {
		t.Fatal(err)
	}
	return number, sha
}

func (w *world) push(t *testing.T, branch string, change githubsim.Commit) (sha string) {
	t.Helper()
	sha, err := w.sim.Commit(owner, repo, branch, change)
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

func (w *world) merge(t *testing.T, number int) (sha string) {
	t.Helper()
	sha, err := w.sim.Merge(owner, repo, number)
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

// shows waits until GitHub shows this state, and returns the status.
func (w *world) shows(t *testing.T, sha, context, state string) (shown githubsim.Status) {
	t.Helper()
	kittest.Eventually(t, settleWithin, func() error {
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
func (w *world) promotion(t *testing.T) (found githubsim.PullRequest) {
	t.Helper()
	kittest.Eventually(t, settleWithin, func() error {
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

// freePort is a port that nobody listens on. It lies below those that the kernel
// gives to outgoing connections, one of which could take it before its server does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + mathrand.IntN(10000)
		lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = lis.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func files(nameAndContent ...string) githubsim.Commit {
	change := githubsim.Commit{Files: map[string]string{}}
	for pair := range slices.Chunk(nameAndContent, 2) {
		change.Files[pair[0]] = pair[1]
	}
	return change
}

func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }
