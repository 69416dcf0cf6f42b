// Package docker runs each build in a container of its own, through the Docker
// Engine API.
//
// An attempt is what carries its label: one container and one network. Nothing is
// kept elsewhere, so a Forge that was killed between any two steps finds what it
// has made, and Start goes on from there.
//
// What a build gets:
//
//   - The user's image with forgexec as process 1, which is copied in. The
//     workspace is part of the container and goes with it.
//   - A bridge network of its own, which reaches no other container and so not
//     Forge's, if Forge is in one.
//   - Of the host, the directory of the runner's socket, read-only. Never Docker's.
//   - Docker's default capabilities less NET_RAW, and no way to gain others.
//   - Limits of CPU, memory (swap included) and processes.
//
// What the Engine API cannot do is keep a container from addresses outside: from
// the host's own, and from 169.254.0.0/16, where clouds answer with the host's
// credentials. That is a rule in the host's chain DOCKER-USER.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/scheduler"
)

// Config of an engine.
type Config struct {
	// Host is where the Docker engine is, "unix:///path" or "tcp://host:port".
	// Default: DOCKER_HOST, else Docker's socket.
	Host string
	// Instance tells the containers of this Forge from those of another one on the
	// same Docker engine, which are not its orphans to remove. It outlives restarts;
	// replicas share it.
	Instance string
	// Forgexec is the command line of forgexec. The program is static, and for the
	// machine that the containers run on.
	Forgexec []string
	// RunnerDir is the directory of the runner's socket as the Docker engine knows
	// it. Default: as the runner's URL says, which is right where Forge itself is not
	// in a container.
	RunnerDir string
	// ConfigFile has the credentials for registries, as "docker login" keeps them. It
	// is read for each pull. Default: Docker's own, if there is one.
	ConfigFile string
	// Pull is when images are pulled. Default: PullMissing.
	Pull Pull
	// Pids is how many processes and threads a build may have. Default: 4096.
	Pids int64
	// Log may be nil.
	Log *slog.Logger
}

// Pull is when an image is pulled.
type Pull string

// An image that is there may be older than what its tag names by now.
const (
	PullMissing Pull = "missing" // when the Docker engine does not have it
	PullAlways  Pull = "always"  // for each build
)

const (
	defaultPids  = 4096
	answerWithin = 5 * time.Second
)

// Engine runs builds in containers of one Docker engine.
type Engine struct {
	config   Config
	client   *client.Client
	forgexec program
}

var _ scheduler.Engine = (*Engine)(nil)

// New says at once if the Docker engine does not answer, or if forgexec cannot run
// in containers. The caller closes the engine.
func New(ctx context.Context, c Config) (*Engine, error) {
	if c.Instance == "" {
		return nil, errors.New("docker engine: no name for this instance of Forge")
	}
	if c.Pull == "" {
		c.Pull = PullMissing
	}
	if c.Pull != PullMissing && c.Pull != PullAlways {
		return nil, fmt.Errorf("docker engine: pull policy %q: choose %s or %s", c.Pull, PullMissing, PullAlways)
	}
	if c.Pids == 0 {
		c.Pids = defaultPids
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ConfigFile == "" {
		c.ConfigFile = filepath.Join(config.Dir(), config.ConfigFileName)
	}
	forgexec, err := openProgram(c.Forgexec)
	if err != nil {
		return nil, fmt.Errorf("docker engine: %w", err)
	}
	options := []client.Opt{client.FromEnv}
	if c.Host != "" {
		options = append(options, client.WithHost(c.Host))
	}
	api, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("docker engine: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, errors.Join(unanswered(api.DaemonHost(), err), api.Close())
	}
	return &Engine{config: c, client: api, forgexec: forgexec}, nil
}

// unanswered says why, and what to do.
func unanswered(host string, err error) error {
	if strings.HasPrefix(err.Error(), "permission denied") { // all that the client leaves of it
		return fmt.Errorf("the Docker engine at %s is not for this user: add the user to the group of that socket (docker), "+
			"set DOCKER_HOST, or choose FORGE_ENGINE=process", host)
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok {
		err = dial // the client's words around it say the same
	}
	return fmt.Errorf("the Docker engine at %s does not answer: %w; start it, set DOCKER_HOST, or choose FORGE_ENGINE=process", host, err)
}

// Name is "docker".
func (e *Engine) Name() string { return "docker" }

// Close closes the connections to the Docker engine. Containers run on.
func (e *Engine) Close() error { return e.client.Close() }

// Start pulls the image if need be, which may take minutes.
func (e *Engine) Start(ctx context.Context, spec scheduler.Spec) error {
	if err := check(spec); err != nil {
		return err
	}
	found, err := e.containers(ctx, attemptLabel, spec.Attempt)
	if err != nil {
		return err
	}
	id, create := "", client.ContainerCreateOptions{}
	switch {
	case len(found) == 0:
		if create, err = e.container(ctx, spec); err != nil {
			return err
		}
	case found[0].State == container.StateCreated: // a Start was interrupted
		id = found[0].ID
	default:
		return nil
	}
	// The network is wanted when the container starts: it is made meanwhile. Neither
	// is cut short when the other fails, for the Docker engine would go on with it, and
	// a Stop that comes now would not see what is still to be.
	var both errgroup.Group
	both.Go(func() error { return e.network(ctx, spec) })
	both.Go(func() error {
		if id == "" {
			var err error
			if id, err = e.create(ctx, create); err != nil {
				return err
			}
		}
		return e.bringForgexec(ctx, id)
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start the container of attempt %s: %w", spec.Attempt, err)
	}
	e.config.Log.InfoContext(ctx, "started", "attempt", spec.Attempt, "build", spec.BuildID, "image", spec.Image, "container", id)
	return nil
}

// Stop kills the container and removes it, its volumes and its network.
func (e *Engine) Stop(ctx context.Context, attempt string) error {
	if err := checkName(attempt); err != nil {
		return err
	}
	containers, err := e.containers(ctx, attemptLabel, attempt)
	if err != nil {
		return err
	}
	for _, c := range containers {
		_, err := e.client.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the container of attempt %s: %w", attempt, err)
		}
	}
	networks, err := e.networks(ctx, attempt)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if _, err := e.client.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the network of attempt %s: %w", attempt, err)
		}
	}
	return nil
}

// List asks the Docker engine.
func (e *Engine) List(ctx context.Context) ([]scheduler.Container, error) {
	found, err := e.containers(ctx, instanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	var containers []scheduler.Container
	for _, c := range found {
		inspected, err := e.client.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", c.ID, err)
		}
		one, err := seen(c.Labels[attemptLabel], inspected.Container.State)
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", c.ID, err)
		}
		containers = append(containers, one)
	}
	return containers, nil
}

// seen is a container in the scheduler's words.
func seen(attempt string, state *container.State) (scheduler.Container, error) {
	c := scheduler.Container{Attempt: attempt, Running: state.Running, ExitCode: -1, OutOfMemory: state.OOMKilled}
	started, err := time.Parse(time.RFC3339Nano, state.StartedAt)
	if err != nil {
		return c, fmt.Errorf("time of its start: %w", err)
	}
	c.Start = started // Docker's zero time is Go's
	if !c.Running && !started.IsZero() {
		c.ExitCode = state.ExitCode
	}
	return c, nil
}
