package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engines"
)

func (d *doctor) git(ctx context.Context, r *report) {
	version, err := mirror.CheckGit(ctx)
	if err != nil {
		r.broken("git", err.Error(), "install git 2.39 or newer")
		return
	}
	r.finef("git", "%s", version)
}

// refused is the exit code of a forgexec whom the runner's address answered that it
// wants nothing of it: the answer that shows that it got there.
const refused = 3

// engine has the engine run forgexec as it does for a build, with a token that nobody
// has given out.
func (d *doctor) engine(ctx context.Context, r *report) {
	const check = "engine"
	s := d.Settings
	if s.CheckEngine() != nil {
		r.skip(check, "nothing was run: see settings")
		return
	}
	dir, err := os.MkdirTemp("", "forge-doctor-")
	if err != nil {
		r.broken(check, err.Error(), "make room for temporary files")
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is a temporary folder
	containers, err := engines.New(ctx, engines.Config{
		Name: s.Engine, DataDir: dir, Instance: "doctor-" + strings.ToLower(rand.Text()), Log: d.Log,
		Swarm: engines.Swarm{ForgexecImage: s.Forgexec(), Constraints: s.Swarm.Constraints, ForkConstraints: s.Swarm.ForkConstraints, MTU: s.Swarm.MTU},
		Build: engines.Build(s.Build),
	})
	if err != nil {
		r.broken(check, err.Error(), engineFix(s.Engine))
		return
	}
	if closing, ok := containers.(interface{ Close() error }); ok {
		defer closing.Close() //nolint:errcheck // nothing is left to be said
	}
	runner, err := d.openRunner(ctx)
	if err != nil {
		r.broken("runner address", err.Error(), "free the address, or choose another with FORGE_RUNNER_ADDRESS")
		return
	}
	defer runner.close()
	image := s.Forgexec()
	if probing, ok := containers.(interface {
		ProbeImage(ctx context.Context) (string, func(context.Context) error, error)
	}); ok {
		name, remove, err := probing.ProbeImage(ctx)
		if err != nil {
			r.broken(check, err.Error(), engineFix(s.Engine))
			return
		}
		image = name
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), soon)
			defer cancel()
			if err := remove(ctx); err != nil {
				r.warn(check, "an image is left: "+err.Error(), "docker rmi "+name)
			}
		}()
	}
	d.tryAttempt(ctx, r, containers, engine.Spec{
		Attempt: "doctor-" + strings.ToLower(rand.Text()), BuildID: "doctor", Repository: "forge/doctor", Action: "doctor", Image: image,
		Runner: engine.Runner{URL: runner.url, CA: runner.ca, Token: "doctor-" + rand.Text()},
	})
}

func engineFix(name string) string {
	if name == "process" {
		return "put forgexec beside forge, and let it run programs"
	}
	return "start Docker, let this user use its socket (group docker), or set DOCKER_HOST"
}

// tryAttempt starts an attempt and sees how it ends.
func (d *doctor) tryAttempt(ctx context.Context, r *report, containers engine.Engine, spec engine.Spec) {
	const check = "engine"
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), soon)
		defer cancel()
		if err := containers.Stop(ctx, spec.Attempt); err != nil {
			r.warn(check, "what was run may be there still: "+err.Error(), "remove the container of attempt "+spec.Attempt)
		}
	}()
	begin := time.Now()
	if err := containers.Start(ctx, spec); err != nil {
		fix := engineFix(containers.Name())
		if strings.Contains(err.Error(), "/forgexec: no such file") {
			fix = runnerDirFix
		}
		r.broken(check, "a container cannot be run: "+err.Error(), fix)
		return
	}
	away := 0
	for d.wait(ctx) {
		all, err := containers.List(ctx)
		if err != nil {
			continue
		}
		for _, c := range all {
			if c.Attempt == spec.Attempt && !c.Running {
				d.ended(ctx, r, containers, spec, c, time.Since(begin))
				return
			}
		}
		// It tries for minutes. That it could not thrice in a row is enough to know.
		if text, err := containers.Tail(ctx, spec.Attempt); err == nil && strings.Contains(text, "the scheduler is away") {
			if away++; away == 3 {
				r.unreachable(spec.Runner.URL, text)
				return
			}
		}
	}
	r.broken(check, "a container was started, and does not end", "see docker ps and the engine's log")
}

func (d *doctor) ended(ctx context.Context, r *report, containers engine.Engine, spec engine.Spec, c engine.Container, took time.Duration) {
	if c.ExitCode == refused {
		r.finef("engine", "%s: what runs builds was run, and reached the runner's address (%v)", containers.Name(), took.Round(100*time.Millisecond))
		return
	}
	text, err := containers.Tail(ctx, spec.Attempt)
	if err == nil && (strings.Contains(text, "the scheduler is away") || strings.Contains(text, "no scheduler for")) {
		r.unreachable(spec.Runner.URL, text)
		return
	}
	r.broken("engine", fmt.Sprintf("a container was run, and ended with %d: %s", c.ExitCode, lastLine(c.Reason+" "+text)), "see whether the engine's host can run programs of this one (platform, noexec, security modules)")
}

const runnerDirFix = "where Forge is in a container, set FORGE_BUILD_RUNNER_DIR to the folder of the runner's socket as the engine's host has it; else unset it"

func (r *report) unreachable(address, said string) {
	fix := "let containers reach that address: the firewall between Docker's networks and this host, and FORGE_RUNNER_URL"
	if strings.HasPrefix(address, "unix://") {
		fix = runnerDirFix
	}
	r.broken("runner address", fmt.Sprintf("a container runs, and does not reach %s: %s", address, lastLine(said)), fix)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// runner is where forgexec is answered: the scheduler's, or one for the moment.
type runner struct {
	url, ca string
	close   func()
}

// openRunner finds the runner's address served, or serves it.
func (d *doctor) openRunner(ctx context.Context) (runner, error) {
	s := d.Settings
	network, address, url, err := s.RunnerTarget(s.DataDir)
	if err != nil {
		return runner{}, err
	}
	if conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, address); err == nil {
		_ = conn.Close()
		ca, err := shownAt(ctx, network, address)
		return runner{url, ca, func() {}}, err
	}
	own, err := s.ListenRunner(ctx, s.DataDir, s.Certificate)
	if err != nil {
		return runner{}, err
	}
	err = own.Certify(func(host string, _ func() (cert, key []byte, err error)) (cert, key []byte, err error) {
		return rpc.SelfSigned("Forge's doctor", []string{host}, time.Now(), time.Hour)
	})
	if err != nil {
		return runner{}, errors.Join(err, own.Close())
	}
	options := []grpc.ServerOption{grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return grpcstatus.Error(codes.Unauthenticated, "this is forge doctor")
	})}
	if own.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(own.TLS)))
	}
	server := grpc.NewServer(options...)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(own.Listener) // ends with Stop
	}()
	return runner{own.URL, own.CA, func() {
		server.Stop()
		<-served
	}}, nil
}

// shownAt is the certificate that is shown at an address of this host, PEM; "" at a
// socket.
func shownAt(ctx context.Context, network, address string) (string, error) {
	if network == "unix" {
		return "", nil
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} //nolint:gosec // it is looked at, and nothing is told to it
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return "", fmt.Errorf("the runner's address %s speaks no TLS: %w", address, err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	var shown strings.Builder
	if conn, ok := conn.(*tls.Conn); ok {
		for _, certificate := range conn.ConnectionState().PeerCertificates {
			if err := pem.Encode(&shown, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}); err != nil {
				return "", err
			}
		}
	}
	return shown.String(), nil
}
