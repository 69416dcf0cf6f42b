// Package docker runs each build in a container of its own, through the Docker
// Engine API.
//
// An attempt is what carries its label: a container, one more for each sidecar,
// and a network. Nothing is kept elsewhere, so a Forge that was killed between any
// two steps finds what it has made, and Start goes on from there.
//
// What a build gets:
//
//   - The user's image with forgexec as process 1. The workspace is part of the
//     container and goes with it.
//   - Its sidecars, ready before its first command, gone with it.
//   - A bridge network for these alone, which reaches no other container and so
//     not Forge's, if Forge is in one.
//   - Of the host, the directory of the runner's socket, read-only. Never Docker's.
//   - Docker's default capabilities less NET_RAW, and no way to gain others.
//   - More of the host only where the Spec says so, and never for a fork.
//   - Of the images that are there, those that its registry would give it.
//   - Limits of CPU, memory (swap included) and processes, for each container.
//
// forgexec is put beside the runner's socket, once. Where that cannot be (there is
// no socket, or no program may run from there) it is copied into each container.
//
// What the Engine API cannot do is keep a container from addresses outside: from
// the host's own, and from 169.254.0.0/16, where clouds answer with the host's
// credentials. That is a rule in the host's chain DOCKER-USER.
package docker

import (
	"cmp"
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

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
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
	// Pids is how many processes and threads a container may have. Default: 4096.
	Pids int64
	// Disk bounds what a container may write to its image's file system, in Docker's
	// words for sizes. Default: no limit. Few storage drivers can do it; another one
	// refuses each container.
	Disk string
	// User runs the commands, "user", "uid" or "uid:gid". Default: the image's.
	User string
	// ReadOnly leaves the commands their workspace and /tmp to write to.
	ReadOnly bool
	// Proxies and Environment are variables that every build has. What ConfigFile says
	// of proxies wins over the former, the latter over that.
	Proxies, Environment map[string]string
	// MTU of the builds' networks. Default: that of the Docker engine's own.
	MTU int
	// ReadyWithin is how long sidecars may take. Default: 2 minutes.
	ReadyWithin time.Duration
	// RetryAfter is the pause before the second and last try at what may pass: a
	// registry that is down, a full disk. Default: 10 seconds.
	RetryAfter time.Duration
	// ProgressEvery is how often the build's log tells of a pull. Default: 5 seconds.
	ProgressEvery time.Duration
	// Waiting is how many containers wait for builds at most, so that these start at once.
	// Default: none.
	Waiting int
	// Sparing: fewer wait where they would take more than a twentieth of the free memory.
	Sparing bool
	// Alone: no other process has this Instance, so that what waits for none of this one's
	// builds was left behind.
	Alone bool
	// TidyEvery is how often those that wait are looked after. Default: a minute.
	TidyEvery time.Duration
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

const answerWithin = 5 * time.Second

// Engine runs builds in containers of one Docker engine.
type Engine struct {
	config   Config
	client   *client.Client
	forgexec *program
	access   *dockerapi.Access
	selinux  bool // it confines containers
	waiting  *waiting
}

var _ engine.Engine = (*Engine)(nil)

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
	c.Pids = cmp.Or(c.Pids, 4096)
	c.ReadyWithin = cmp.Or(c.ReadyWithin, 2*time.Minute)
	c.RetryAfter = cmp.Or(c.RetryAfter, 10*time.Second)
	c.ProgressEvery = cmp.Or(c.ProgressEvery, 5*time.Second)
	c.TidyEvery = cmp.Or(c.TidyEvery, time.Minute)
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
	e := &Engine{config: c, client: api, forgexec: forgexec}
	e.access = &dockerapi.Access{Registries: e.registries(), Client: api}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("what the Docker engine can do: %w", err), api.Close())
	}
	e.heedSELinux(ctx, info.Info)
	e.waiting = newWaiting(ctx, e, roomOf(info.Info.MemTotal, api.DaemonHost()))
	return e, nil
}

// Answers reports whether a Docker engine answers this user where the environment says.
func Answers(ctx context.Context) bool {
	api, err := client.New(client.FromEnv)
	if err != nil {
		return false
	}
	defer api.Close() //nolint:errcheck // nothing is left to be sent
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err = api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	return err == nil
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

// Docker is the client of the engine, for its BuildKit; it is closed with this one.
func (e *Engine) Docker() *client.Client { return e.client }

func (e *Engine) registries() dockerapi.Registries {
	return dockerapi.Registries{File: e.config.ConfigFile}
}

// Close removes what waits for builds, and closes the connections to the Docker
// engine. Builds run on.
func (e *Engine) Close() error {
	e.waiting.close()
	return e.client.Close()
}

// Start pulls images if need be and waits for sidecars, which may take minutes.
// What may pass by itself it tries once more.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) error {
	if err := dockerapi.Check(spec); err != nil {
		return err
	}
	err := e.start(ctx, spec)
	if !passing(err) {
		return err
	}
	spec.Sayf("%v; trying once more in %v", err, e.config.RetryAfter)
	spec.WaitsFor(waitOf(err), err.Error())
	defer spec.WaitsFor(engine.WaitOther, "")
	pause := time.NewTimer(e.config.RetryAfter)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
	}
	if err = e.start(ctx, spec); passing(err) {
		return fault.Newf(fault.Invalid, "%w", err)
	}
	return err
}

// trouble is what keeps a container from being started though the Docker engine
// answers. It may pass.
type trouble struct {
	error
	fullDisk bool
}

func passing(err error) bool {
	_, ok := errors.AsType[trouble](err)
	return ok
}

// waitOf is what a build waits for that is in trouble.
func waitOf(err error) engine.Wait {
	if of, ok := errors.AsType[trouble](err); ok && of.fullDisk {
		return engine.WaitDisk
	}
	return engine.WaitRetry
}

func (e *Engine) start(ctx context.Context, spec engine.Spec) error {
	found, err := e.containersOf(ctx, spec.Attempt)
	if err != nil {
		return err
	}
	beside := map[string]string{} // ids of sidecars
	for _, c := range found {
		switch name := c.Labels[dockerapi.SidecarLabel]; {
		case name != "":
			beside[name] = c.ID
		case c.Labels[dockerapi.WaitingLabel] != "" && c.State == container.StateRunning: // it may have no token yet
			return e.waiting.give(ctx, c.ID, spec.Runner.Token)
		case c.State != container.StateCreated:
			return nil
		default: // a Start was interrupted, of another version perhaps
			if err := e.remove(ctx, c.ID, false); err != nil {
				return err
			}
		}
	}
	create, err := e.container(ctx, spec)
	if err != nil {
		return err
	}
	if taken, err := e.waiting.take(ctx, spec, create); taken || err != nil {
		return err
	}
	sidecars, err := e.sidecars(ctx, spec, beside)
	if err != nil {
		return err
	}
	// The network is wanted when the container starts: it is made meanwhile. Neither
	// is cut short when the other fails, for the Docker engine would go on with it, and
	// a Stop that comes now would not see what is still to be.
	var id string
	var both errgroup.Group
	both.Go(func() error {
		if err := e.network(ctx, spec); err != nil {
			return err
		}
		return e.startSidecars(ctx, spec, sidecars)
	})
	both.Go(func() (err error) {
		id, err = e.create(ctx, create)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return e.notStarted(ctx, spec, err)
	}
	e.config.Log.InfoContext(ctx, "started", "attempt", spec.Attempt, "build", spec.BuildID, "image", spec.Image, "container", id)
	return nil
}

// notStarted says why a container that is there does not start.
func (e *Engine) notStarted(ctx context.Context, spec engine.Spec, err error) error {
	if taken := e.portTaken(ctx, spec.Ports, err); taken != nil {
		return taken
	}
	said := dockerapi.Plain(err)
	switch {
	case strings.Contains(said, "is ambiguous"): // a second network turned up; the next try removes it
		return fmt.Errorf("start the container of attempt %s: %w", spec.Attempt, err)
	case strings.HasPrefix(said, "unable to find user"), strings.HasPrefix(said, "unable to find group"):
		return fault.Newf(fault.Invalid, "image %s does not know whom its commands are to run as: %s", spec.Image, said)
	case errdefs.IsInvalidArgument(err):
		return fault.Newf(fault.Invalid, "the container cannot be started: %s", said)
	}
	// An engine that answers has no more to say when it is asked for ever.
	if err := full(err); passing(err) || !errdefs.IsInternal(err) {
		return err
	}
	return trouble{error: fmt.Errorf("the container cannot be started: %s", said)}
}

// full tells a full disk from other errors.
func full(err error) error {
	if err != nil && strings.Contains(err.Error(), "no space left on device") {
		return trouble{error: fmt.Errorf("the disk of the Docker engine is full: %w", err), fullDisk: true}
	}
	return err
}

// Stop kills the containers and removes them, their volumes and their network.
func (e *Engine) Stop(ctx context.Context, attempt string) error {
	if err := dockerapi.CheckName(attempt); err != nil {
		return err
	}
	containers, err := e.containersOf(ctx, attempt)
	if err != nil {
		return err
	}
	var all errgroup.Group
	for _, c := range containers {
		all.Go(func() error {
			if c.Labels[dockerapi.WaitingLabel] != "" {
				return e.removeTaken(ctx, c)
			}
			return e.remove(ctx, c.ID, true)
		})
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("remove the containers of attempt %s: %w", attempt, err)
	}
	networks, err := e.networks(ctx, dockerapi.AttemptLabel, attempt)
	if err != nil {
		return err
	}
	return e.removeNetworks(ctx, networks)
}

func (e *Engine) remove(ctx context.Context, id string, running bool) error {
	_, err := e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: running, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}
