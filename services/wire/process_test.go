package wire_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// binDir holds the binaries, which the first test that needs them builds.
var binDir string

var buildBinaries = sync.OnceValue(func() error {
	build := exec.Command("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", binDir, "../cmd/...") // as shipped: static, for containers
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	kittest.MaybeTool()
	var err error
	if binDir, err = os.MkdirTemp("", "forge-bin"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binDir)
	os.Exit(code)
}

// process is one binary with its settings, which can be started again and again.
type process struct {
	name   string
	args   []string
	dir    string
	env    []string
	output *tail // of all its lives

	cmd    *exec.Cmd
	exited chan struct{} // closed when this life is over, err is set by then
	err    error
}

// begin starts the process. It must not be running.
func (p *process) begin(t testing.TB) {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(filepath.Join(binDir, p.name), p.args...)
	p.cmd.Dir, p.cmd.Env = p.dir, p.env
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() {
		p.err = cmd.Wait()
		close(exited)
	}()
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// stop has the process end by itself.
func (p *process) stop(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.kill()
		t.Errorf("%s did not stop", p.name)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 256 << 10

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > 2*tailSize {
		b.buf.Next(b.buf.Len() - tailSize)
	}
	return b.buf.Write(p)
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start starts a binary with the settings that all share in its environment. It
// is stopped when the test ends.
func (s *server) start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := s.prepare(name, args...)
	s.begin(t, p)
	return p
}

// prepare has a process ready to be begun.
func (s *server) prepare(name string, args ...string) *process {
	p := &process{name: name, args: args, dir: s.dir, output: &tail{}}
	p.env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"FORGE_DATA_DIR=" + filepath.Join(s.dir, "forge-data"), "FORGE_ADMIN_TOKEN=" + adminToken,
		"FORGE_WEBHOOK_SECRETS=" + webhookSecret, "FORGE_WEBHOOK_ALLOWED_IPS=any",
		fmt.Sprintf("FORGE_GITHUB_APP_ID=%d", appID), "FORGE_GITHUB_PRIVATE_KEY_FILE=" + s.key,
		"FORGE_GITHUB_API_URL=" + s.github, "FORGE_GITHUB_URL=" + s.github,
	}, s.env...)
	s.processes = append(s.processes, p)
	return p
}

// begin starts prepared processes for the first time.
func (s *server) begin(t testing.TB, processes ...*process) {
	t.Helper()
	for _, p := range processes {
		p.begin(t)
		t.Cleanup(func() {
			p.stop(t)
			if t.Failed() {
				t.Logf("%s said:\n%s", p.name, p.output)
			}
		})
	}
}

// process is the one of this name.
func (s *server) process(name string) *process {
	for _, p := range s.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

// lay prepares Forge in the given way, its processes in the order in which they
// are to start: the gateway first, since any order must do.
func (w *world) lay(t testing.TB, d deployment) {
	t.Helper()
	if d.postgres {
		url := kittest.PostgresURL(t)
		if d.pooler {
			url = kittest.PgBouncer(t, url)
		}
		w.env = append(w.env, "FORGE_DATABASE_URL="+url, "FORGE_SECRETS_KEY="+secretsKey)
	}
	if d.replicas > 0 {
		w.layReplicas(t, d.replicas)
		return
	}
	httpPort := kittest.FreePort(t)
	w.http = fmt.Sprintf("http://127.0.0.1:%d", httpPort)
	w.env = append(w.env, "FORGE_EXTERNAL_URL="+w.http, "FORGE_ENGINE=process")
	web := []string{"--address=127.0.0.1", fmt.Sprintf("--port=%d", httpPort)}
	if !d.apart {
		w.grpc = kittest.FreeAddress(t)
		w.prepare("forge", append([]string{"up", "--grpc-address=" + w.grpc}, web...)...)
		return
	}
	rooms := []string{"gateway", "scheduler", "reporter", "config"}
	w.apart = map[string]string{}
	for _, room := range rooms {
		w.apart[room] = kittest.FreeAddress(t)
	}
	w.grpc = w.apart["gateway"]
	w.env = append(w.env, "FORGE_CONFIG_URL="+w.apart["config"], "FORGE_SCHEDULER_URL="+w.apart["scheduler"], "FORGE_REPORTER_URL="+w.apart["reporter"])
	proofs := w.proofs(t, d, rooms)
	for _, room := range rooms {
		args := []string{"--grpc-address=" + w.apart[room]}
		if room == "gateway" {
			args = append(args, web...)
		}
		w.prepare(room, append(args, proofs[room]...)...)
	}
}

// proofs are the flags by which each room proves itself to the others.
func (s *server) proofs(t testing.TB, d deployment, rooms []string) map[string][]string {
	t.Helper()
	flags := map[string][]string{}
	if d.certificates {
		authority := newAuthority(t, s.dir)
		s.tls = authority.trusted()
		s.env = append(s.env, "FORGE_TLS_CA="+authority.file)
		for _, room := range rooms {
			cert, key := authority.certify(t, room)
			flags[room] = []string{"--tls-cert=" + cert, "--tls-key=" + key}
		}
		return flags
	}
	var tokens []string
	for _, room := range rooms {
		tokens = append(tokens, room+"=token-of-"+room)
		flags[room] = []string{"--room-token=token-of-" + room}
	}
	s.env = append(s.env, "FORGE_ROOM_TOKENS="+strings.Join(tokens, ","))
	return flags
}

// deploy starts Forge in the given way, waits until it answers and points
// GitHub's webhook there.
func (w *world) deploy(t testing.TB, d deployment) {
	t.Helper()
	w.lay(t, d)
	w.begin(t, w.processes...)
	w.awaitUp(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
}

// up starts `forge up`, waits until it answers and points GitHub's webhook there.
func (w *world) up(t testing.TB) {
	t.Helper()
	w.deploy(t, deployment{})
}

func (s *server) awaitUp(t testing.TB) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		for _, p := range s.processes {
			select {
			case <-p.exited:
				t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.output)
			default:
			}
		}
		answer, err := http.Get(s.http + "/v1/status")
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
