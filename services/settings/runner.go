package settings

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/rpc"
)

const runnerAddress = "FORGE_RUNNER_ADDRESS (--runner-address)"

// Runner is where forgexec is served.
type Runner struct {
	net.Listener
	URL string      // what forgexec is told to dial
	CA  string      // PEM of the certificates it trusts there; "": the system's
	TLS *tls.Config // nil at a socket
}

// ListenRunner listens for forgexec. The default is a socket in a directory of
// its own, so that a container can be given the directory and nothing else. What
// other machines reach speaks TLS, with the certificate that is set or one that
// is made here.
func (s Scheduler) ListenRunner(dataDir string, own Certificate) (r Runner, err error) {
	path, unix := strings.CutPrefix(s.RunnerAddress, "unix://")
	switch {
	case s.RunnerAddress == "":
		r.Listener, r.URL, err = listenSocket(filepath.Join(dataDir, "runner", "runner.sock"))
	case unix:
		r.Listener, r.URL, err = listenSocket(path)
	default:
		r, err = s.listenTLS(dataDir, own)
	}
	r.URL = cmp.Or(s.RunnerURL, r.URL)
	return r, err
}

func listenSocket(path string) (net.Listener, string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", runnerAddress, err)
	}
	// Users inside containers connect; none of them may list or write.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // see above
		return nil, "", fmt.Errorf("%s: %w", runnerAddress, err)
	}
	lis, err := listen("unix", path, runnerAddress)
	return lis, "unix://" + path, err
}

func (s Scheduler) listenTLS(dataDir string, own Certificate) (Runner, error) {
	host, _, err := net.SplitHostPort(s.RunnerAddress)
	if err != nil {
		return Runner{}, fmt.Errorf("%s is %q: use unix:///path/to/a/socket or host:port", runnerAddress, s.RunnerAddress)
	}
	if s.RunnerURL != "" {
		if host, _, err = net.SplitHostPort(s.RunnerURL); err != nil {
			return Runner{}, fmt.Errorf("FORGE_RUNNER_URL is %q: use the host:port at which builds reach %s", s.RunnerURL, s.RunnerAddress)
		}
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return Runner{}, fmt.Errorf("%s is %s, which nobody can dial: set FORGE_RUNNER_URL to the host:port at which builds reach it", runnerAddress, s.RunnerAddress)
	}
	var r Runner
	if own == (Certificate{}) {
		r.TLS, r.CA, err = madeCertificate(filepath.Join(dataDir, "runner-tls"), host)
	} else {
		var authority []byte
		r.TLS, authority, err = own.load()
		r.CA = string(authority)
	}
	if err != nil {
		return Runner{}, err
	}
	if r.Listener, err = listen("tcp", s.RunnerAddress, runnerAddress); err != nil {
		return Runner{}, err
	}
	r.URL = r.Listener.Addr().String()
	if _, port, err := net.SplitHostPort(r.URL); err == nil { // the address may have left the port to the system
		r.URL = net.JoinHostPort(host, port)
	}
	return r, nil
}

// madeFor is how long a certificate made here lasts. A build that outlives a
// restart knows the one it was started with, so it is kept.
const madeFor = 10 * 365 * 24 * time.Hour

// madeCertificate returns the certificate for host that is kept in dir, made
// where there is none. It is its own authority.
func madeCertificate(dir, host string) (*tls.Config, string, error) {
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("certificate of the runner address: %w; remove %s to have it made anew", err, dir)
	}
	if err != nil || pair.Leaf.VerifyHostname(host) != nil {
		if pair, err = makeCertificate(certFile, keyFile, host); err != nil {
			return nil, "", fmt.Errorf("certificate of the runner address: %w", err)
		}
	}
	authority, err := os.ReadFile(certFile)
	if err != nil {
		return nil, "", fmt.Errorf("certificate of the runner address: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, string(authority), nil
}

func makeCertificate(certFile, keyFile, host string) (pair tls.Certificate, err error) {
	cert, key, err := rpc.SelfSigned("Forge's runner address", []string{host}, time.Now(), madeFor)
	if err != nil {
		return pair, err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return pair, err
	}
	// The certificate last: it is not there without its key.
	if err := errors.Join(os.WriteFile(keyFile, key, 0o600), os.WriteFile(certFile, cert, 0o600)); err != nil {
		return pair, err
	}
	return tls.X509KeyPair(cert, key)
}
