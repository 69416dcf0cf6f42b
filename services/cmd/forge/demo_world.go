package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/rpc"
)

//go:embed all:sample
var sample embed.FS

// world is GitHub and Forge.
type world struct {
	sim    *githubsim.Sim
	server *http.Server
	github string   // its URL
	key    string   // file with the App's private key
	secret string   // of the webhook
	self   string   // the binary that runs Forge; this one's own if empty
	env    []string // further settings of Forge
	free   func(port int) (address string, err error)

	process *exec.Cmd
	exited  chan struct{} // closed when it has ended, with exit
	exit    error
	config  string   // Forge's settings file
	data    string   // Forge's data directory
	grpc    string   // its gRPC address
	log     *os.File // what Forge logs
	forge   string   // its URL
	calls   *forgeClient
}

// newWorld sets up GitHub: the App, its installation, a repository with a
// production branch.
func newWorld(dir string) (*world, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("key of the App: %w", err)
	}
	w := &world{
		key: filepath.Join(dir, "app.pem"), secret: rand.Text(), config: filepath.Join(dir, "forge.yaml"), data: filepath.Join(dir, "data"),
		exited: make(chan struct{}), free: freeAddress,
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(w.key, block, 0o600); err != nil {
		return nil, fmt.Errorf("key of the App: %w", err)
	}
	if w.log, err = os.Create(filepath.Join(dir, "forge.log")); err != nil {
		return nil, fmt.Errorf("log of Forge: %w", err)
	}
	files, err := fs.Sub(sample, "sample")
	if err != nil {
		return nil, fmt.Errorf("sample repository: %w", err)
	}
	w.sim = githubsim.New(githubsim.Config{AppID: demoApp, AppKey: &key.PublicKey, Log: slog.New(slog.DiscardHandler)})
	w.sim.AddInstallation(demoOwner)
	if err := w.sim.AddRepository(githubsim.Repository{Owner: demoOwner, Name: demoRepo, Public: true, Folder: files}); err != nil {
		return nil, err
	}
	if err := w.sim.CreateBranch(demoOwner, demoRepo, "production", "main"); err != nil {
		return nil, err
	}
	lis, err := listenPreferred(9097)
	if err != nil {
		return nil, err
	}
	w.github = "http://" + lis.Addr().String()
	w.sim.SetURL(w.github)
	w.server = &http.Server{Handler: w.sim, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = w.server.Serve(lis) }() // ends with Close
	return w, nil
}

// start starts Forge and connects GitHub's webhook to it.
func (w *world) start(ctx context.Context) error {
	httpAddress, err := w.free(9098)
	if err != nil {
		return err
	}
	grpcAddress, err := w.free(9090)
	if err != nil {
		return err
	}
	self := w.self
	if self == "" {
		if self, err = os.Executable(); err != nil {
			return fmt.Errorf("forge's own path: %w", err)
		}
	}
	w.forge, w.grpc = "http://"+httpAddress, grpcAddress
	_, port, _ := strings.Cut(httpAddress, ":")
	if err := w.configure(port); err != nil {
		return err
	}
	// Forge outlives ctx: close stops it after the story.
	w.process = exec.CommandContext(context.WithoutCancel(ctx), self, "up", "--config="+w.config)
	w.process.Dir = filepath.Dir(w.data)
	w.process.Env = append(withoutForge(os.Environ()), w.env...)
	w.process.Stdout, w.process.Stderr = w.log, w.log
	// Ctrl-C is for the demo, which stops Forge when it is done with it.
	w.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := w.process.Start(); err != nil {
		return fmt.Errorf("start forge up: %w", err)
	}
	go func() {
		w.exit = w.process.Wait()
		close(w.exited)
	}()
	if err := w.awaitUp(ctx); err != nil {
		return errors.Join(err, w.logTail())
	}
	token, err := os.ReadFile(filepath.Join(w.data, "admin-token"))
	if err != nil {
		return fmt.Errorf("admin token: %w", err)
	}
	conn, err := rpc.Dial(grpcAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	w.calls = newForgeClient(conn, strings.TrimSpace(string(token)))
	w.sim.SetWebhook(w.forge+"/v1/listen", w.secret)
	return nil
}

// configure writes the settings of Forge, by which verbs such as forge doctor find it, too.
func (w *world) configure(port string) error {
	var text strings.Builder
	for _, setting := range [][2]string{
		{"engine", "process"},
		{"address", "127.0.0.1"},
		{"port", port},
		{"grpc_address", w.grpc},
		{"data_dir", w.data},
		{"external_url", w.forge},
		{"github_app_id", strconv.Itoa(demoApp)},
		{"github_private_key_file", w.key},
		{"github_url", w.github},
		{"github_api_url", w.github},
		{"webhook_secrets", w.secret},
		{"webhook_allowed_ips", "any"},
	} {
		fmt.Fprintf(&text, "%s: %q\n", setting[0], setting[1])
	}
	if err := os.WriteFile(w.config, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("settings of Forge: %w", err)
	}
	return nil
}

func (w *world) awaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-w.exited:
			return fmt.Errorf("forge up ended: %w", w.exit)
		case <-ctx.Done():
			tick.Stop()
			return errors.New("forge up does not answer")
		case <-tick.C:
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.forge+"/v1/status", nil)
			if err != nil {
				return err
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				continue
			}
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				tick.Stop()
				return nil
			}
		}
	}
}

// close stops Forge, then GitHub.
func (w *world) close() {
	if w.calls != nil {
		_ = w.calls.conn.Close()
	}
	if w.process != nil && w.process.Process != nil {
		_ = w.process.Process.Signal(syscall.SIGTERM) // it may have ended
		<-w.exited
	}
	_ = w.server.Close()
	w.sim.Close()
	_ = w.log.Close()
}

// logTail is the end of Forge's log, as an error to print below another.
func (w *world) logTail() error {
	text, err := os.ReadFile(w.log.Name())
	if err != nil || len(text) == 0 {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("log of Forge ends with:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// withoutForge drops settings of the shell's that are meant for another Forge.
func withoutForge(environ []string) []string {
	var kept []string
	for _, pair := range environ {
		if !strings.HasPrefix(pair, "FORGE_") {
			kept = append(kept, pair)
		}
	}
	return kept
}

// listenPreferred listens on loopback at the port, or where it is taken at any.
func listenPreferred(port int) (net.Listener, error) {
	lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		lis, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return lis, err
}

// freeAddress is an address that nobody listens on at the moment.
func freeAddress(port int) (string, error) {
	lis, err := listenPreferred(port)
	if err != nil {
		return "", err
	}
	return lis.Addr().String(), lis.Close()
}
