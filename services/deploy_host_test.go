package services_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	tracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// dotEnv follows the top of compose.yaml and returns what that leaves in .env.
func dotEnv(t *testing.T, compose string, key *rsa.PrivateKey) map[string]string {
	t.Helper()
	_, script, _ := strings.Cut(compose, "#   (\n")
	script, _, found := strings.Cut(script, "#   )\n")
	if !found {
		t.Fatal("compose.yaml does not begin with how to make .env")
	}
	dir := t.TempDir()
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	write(t, filepath.Join(dir, "your-app.private-key.pem"), string(block), 0o600)
	shell := func(script string) string {
		run := exec.Command("sh", "-euc", script)
		run.Dir, run.Env = dir, []string{"PATH=" + os.Getenv("PATH")}
		says, err := output(run)
		if err != nil {
			t.Fatal(err)
		}
		return says
	}
	shell(strings.ReplaceAll(script, "#   ", ""))
	if info, err := os.Stat(filepath.Join(dir, ".env")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf(".env is not for its owner alone: %v, %v", info, err)
	}
	variables := map[string]string{}
	for line := range strings.SplitSeq(shell("set -a; . ./.env; env -0"), "\x00") { // Compose quotes as the shell does
		name, value, _ := strings.Cut(line, "=")
		variables[name] = value
	}
	return variables
}

// startGitHub starts a GitHub that has the App, its installation and one
// repository with two branches.
func (d *deployment) startGitHub(t *testing.T, key *rsa.PublicKey) {
	t.Helper()
	app, err := strconv.ParseInt(d.variables["FORGE_GITHUB_APP_ID"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	d.github = githubsim.New(githubsim.Config{AppID: app, AppKey: key})
	t.Cleanup(d.github.Close)
	server := &http.Server{Handler: d.github, ReadHeaderTimeout: happensWithin}
	address := "http://" + d.serve(t, server.Serve, server.Close)
	d.github.SetURL(address)
	maps.Copy(d.variables, map[string]string{"FORGE_GITHUB_API_URL": address, "FORGE_GITHUB_URL": address})
	d.github.AddInstallation(d.owner)
	repository := githubsim.Repository{Owner: d.owner, Name: "hello", Files: map[string]string{"README.md": "hello\n"}}
	if err := d.github.AddRepository(repository); err != nil {
		t.Fatal(err)
	}
	if err := d.github.CreateBranch(d.owner, "hello", "change", "main"); err != nil {
		t.Fatal(err)
	}
}

// startDatabase makes a database and lets the containers reach it.
func (d *deployment) startDatabase(t *testing.T) {
	t.Helper()
	database, err := url.Parse(kittest.PostgresURL(t))
	if err != nil {
		t.Fatal(err)
	}
	server := database.Host
	database.Host = d.serve(t, func(l net.Listener) error { return forward(l, server) }, nil)
	d.database = database.String()
}

func (d *deployment) startCollector(t *testing.T) {
	t.Helper()
	d.traces = &collector{services: map[string]map[string]bool{}}
	server := grpc.NewServer()
	tracev1.RegisterTraceServiceServer(server, d.traces)
	d.collector = "http://" + d.serve(t, server.Serve, func() error { server.Stop(); return nil })
}

// serve serves for the containers until the test ends, and returns where. A nil
// stop: serve ends with its listener.
func (d *deployment) serve(t *testing.T, serve func(net.Listener) error, stop func() error) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(d.host, "0"))
	if err != nil {
		t.Fatalf("containers cannot reach this host; is the Docker engine on another? %v", err)
	}
	if stop == nil {
		stop = listener.Close
	}
	var served sync.WaitGroup
	served.Go(func() { _ = serve(listener) }) // it is stopped, which is an error to it
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
	return listener.Addr().String()
}

// forward serves what is at the address to.
func forward(listener net.Listener, to string) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		near, err := listener.Accept()
		if err != nil {
			return err
		}
		open.Go(func() {
			defer near.Close()
			far, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			open.Go(func() {
				_, _ = io.Copy(far, near)
				_ = far.Close() // which ends the other direction
			})
			_, _ = io.Copy(near, far)
		})
	}
}

// collector takes traces in Jaeger's place.
type collector struct {
	tracev1.UnimplementedTraceServiceServer

	mu       sync.Mutex
	services map[string]map[string]bool // by trace
}

func (c *collector) Export(_ context.Context, request *tracev1.ExportTraceServiceRequest) (*tracev1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		var service string
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				trace := string(span.GetTraceId())
				if c.services[trace] == nil {
					c.services[trace] = map[string]bool{}
				}
				c.services[trace][service] = true
			}
		}
	}
	return &tracev1.ExportTraceServiceResponse{}, nil
}

// through is an error until one trace has led through all these services.
func (c *collector) through(services []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seen := range maps.Values(c.services) {
		if !slices.ContainsFunc(services, func(name string) bool { return !seen[name] }) {
			return nil
		}
	}
	return fmt.Errorf("no trace leads through %v; seen: %v", services, slices.Collect(maps.Values(c.services)))
}
