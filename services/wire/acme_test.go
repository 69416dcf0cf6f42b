package wire_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// A gateway gets its certificate from an ACME authority, which calls back by
// TLS-ALPN-01, and serves with the same one after a restart without asking.
func TestCertificateComesFromAnACMEAuthority(t *testing.T) {
	const name = "forge.example.com"
	w := newWorld(t, hello())
	httpsPort := kittest.FreePort(t)
	a := newACME(t, w, httpsPort)
	w.env = append(w.env, "FORGE_ACME_DOMAINS="+name, "FORGE_ACME_URL=https://"+a.address+"/dir", "SSL_CERT_FILE="+a.cert)
	gateway := w.prepare("gateway", "--address=127.0.0.1", fmt.Sprintf("--port=%d", httpsPort), "--grpc-address="+kittest.FreeAddress(t))
	w.begin(t, gateway)

	roots := x509.NewCertPool()
	var serial string
	ask := func(server string) error {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: server}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		client := http.Client{Transport: transport, Timeout: patience}
		resp, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/v1/status", httpsPort))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			return fmt.Errorf("%s %s", resp.Proto, resp.Status)
		}
		serial = resp.TLS.PeerCertificates[0].SerialNumber.String()
		return nil
	}
	kittest.Eventually(t, patience, func() error {
		root, err := a.root()
		if err != nil {
			return err
		}
		roots.AppendCertsFromPEM(root)
		return ask(name)
	})
	first := serial
	if err := ask("other.example.com"); err == nil {
		t.Error("a certificate for a name that was not set")
	}

	gateway.stop(t)
	a.stop()
	gateway.begin(t)
	kittest.Eventually(t, patience, func() error { return ask(name) })
	if serial != first {
		t.Errorf("after a restart the certificate is %s, it was %s", serial, first)
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "forge-data", "acme"))
	if err != nil || len(entries) == 0 {
		t.Fatalf("kept %v, %v", entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

// acme is Pebble, Let's Encrypt's authority for tests, and a DNS to which every
// name is this host.
type acme struct {
	address, management string
	cert                string // by which the authority itself is known
	running             []*exec.Cmd
}

func newACME(t *testing.T, w *world, httpsPort int) *acme {
	t.Helper()
	a := &acme{address: kittest.FreeAddress(t), management: kittest.FreeAddress(t), cert: filepath.Join(w.dir, "acme.pem")}
	cert, key, err := rpc.SelfSigned("acme", []string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": a.address, "managementListenAddress": a.management, "certificate": a.cert, "privateKey": a.cert + ".key",
		"httpPort": kittest.FreePort(t), "tlsPort": httpsPort, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": 7776000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{a.cert: cert, a.cert + ".key": key, a.cert + ".json": config} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dns := kittest.FreeAddress(t)
	a.start(t, "pebble-challtestsrv", "-dnsserver="+dns, "-defaultIPv6=", "-doh=", "-http01=", "-https01=", "-tlsalpn01=", "-management="+kittest.FreeAddress(t))
	a.start(t, "pebble", "-config="+a.cert+".json", "-dnsserver="+dns, "-strict")
	t.Cleanup(a.stop)
	return a
}

func (a *acme) start(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: run `make test`, or `make .bin/.pebble` and add .bin to PATH", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"PEBBLE_VA_NOSLEEP=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.running = append(a.running, cmd)
}

func (a *acme) stop() {
	for _, cmd := range a.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	a.running = nil
}

// root is the certificate that all of the authority's descend from.
func (a *acme) root() ([]byte, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + a.management + "/roots/0")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}
