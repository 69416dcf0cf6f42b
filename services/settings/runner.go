package settings

import (
	"cmp"
	"context"
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
	TLS *tls.Config // nil at a socket, and until Certify where no certificate is set

	host string // that a certificate is still wanted for; "": none
}

// Keep returns the certificate that is kept for a host and its key, both PEM. Where
// none is kept, fresh makes them.
type Keep func(host string, fresh func() (cert, key []byte, err error)) (cert, key []byte, err error)

// ListenRunner listens for forgexec. The default is a socket in a directory of
// its own, so that a container can be given the directory and nothing else. What
// other machines reach speaks TLS, with the certificate that is set or, after
// Certify, one that is made.
func (s Scheduler) ListenRunner(ctx context.Context, dataDir string, own Certificate) (r Runner, err error) {
	path, unix := strings.CutPrefix(s.RunnerAddress, "unix://")
	switch {
	case s.RunnerAddress == "":
		r.Listener, r.URL, err = listenSocket(ctx, filepath.Join(dataDir, "runner", "runner.sock"))
	case unix:
		r.Listener, r.URL, err = listenSocket(ctx, path)
	default:
		r, err = s.listenTLS(ctx, own)
	}
	r.URL = cmp.Or(s.RunnerURL, r.URL)
	return r, err
}

// RunnerTarget is where ListenRunner would listen, and what forgexec would be told to
// dial.
func (s Scheduler) RunnerTarget(dataDir string) (network, address, url string, err error) {
	path, unix := strings.CutPrefix(s.RunnerAddress, "unix://")
	switch {
	case s.RunnerAddress == "":
		path = filepath.Join(dataDir, "runner", "runner.sock")
	case !unix:
		return "tcp", s.RunnerAddress, cmp.Or(s.RunnerURL, s.RunnerAddress), nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", "", fmt.Errorf("%s: %w", runnerAddress, err)
	}
	return "unix", path, cmp.Or(s.RunnerURL, "unix://"+path), nil
}

func listenSocket(ctx context.Context, path string) (net.Listener, string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", runnerAddress, err)
	}
	// Users inside containers connect; none of them may list or write.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // see above
		return nil, "", fmt.Errorf("%s: %w", runnerAddress, err)
	}
	lis, err := listen(ctx, "unix", path, runnerAddress)
	return lis, "unix://" + path, err
}

func (s Scheduler) listenTLS(ctx context.Context, own Certificate) (Runner, error) {
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
		r.host = host
	} else {
		var authority []byte
		if r.TLS, authority, err = own.load(); err != nil {
			return Runner{}, err
		}
		r.CA = string(authority)
	}
	if r.Listener, err = listen(ctx, "tcp", s.RunnerAddress, runnerAddress); err != nil {
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

// Certify gives a runner address that needs a certificate the one that is kept for
// it. That is its own authority.
func (r *Runner) Certify(keep Keep) error {
	if r.host == "" {
		return nil
	}
	cert, key, err := keep(r.host, func() (cert, key []byte, err error) {
		return rpc.SelfSigned("Forge's runner address", []string{r.host}, time.Now(), madeFor)
	})
	if err != nil {
		return fmt.Errorf("certificate of the runner address: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate of the runner address: %w", err)
	}
	r.TLS, r.CA, r.host = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, string(cert), ""
	return nil
}

// RunnerFiles are where a certificate of the runner address is kept, for one process
// alone.
type RunnerFiles struct{ Dir string }

// InDataDir are those of a data directory.
func InDataDir(dataDir string) RunnerFiles { return RunnerFiles{filepath.Join(dataDir, "runner-tls")} }

func (f RunnerFiles) cert() string { return filepath.Join(f.Dir, "cert.pem") }
func (f RunnerFiles) key() string  { return filepath.Join(f.Dir, "key.pem") }

// Find returns the certificate for a host; nil where there is none.
func (f RunnerFiles) Find(host string) (cert, key []byte, err error) {
	cert, err = os.ReadFile(f.cert())
	if err == nil {
		key, err = os.ReadFile(f.key())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.X509KeyPair(cert, key)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w; remove %s to have it made anew", err, f.Dir)
	}
	if named := pair.Leaf.VerifyHostname(host); named == nil {
		return cert, key, nil
	}
	return nil, nil, nil
}

// Keep is a Keep.
func (f RunnerFiles) Keep(host string, fresh func() (cert, key []byte, err error)) (cert, key []byte, err error) {
	if cert, key, err = f.Find(host); cert != nil || err != nil {
		return cert, key, err
	}
	if cert, key, err = fresh(); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	// The certificate last: it is not there without its key.
	return cert, key, errors.Join(os.WriteFile(f.key(), key, 0o600), os.WriteFile(f.cert(), cert, 0o600))
}
