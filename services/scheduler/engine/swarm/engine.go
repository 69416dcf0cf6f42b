// Package swarm runs each build as a job of a Docker Swarm, which places it on one
// of its machines.
//
// An attempt is what carries its label: an overlay network, a service for each
// sidecar, and a replicated job with one task, made last. Names are unique in a
// swarm, so a Forge that was killed between any two steps, or two that start the
// same attempt at once, find what is there, and Start goes on from it.
//
// What a build gets is what it gets of engine docker (forgexec as process 1, limits,
// a network of its own, no way to gain rights), with these differences:
//
//   - forgexec comes from a volume that a global service, the installer, fills on
//     every machine. A machine that does not have it yet is left out.
//   - The workspace is below /tmp: nobody can put a folder into a container here.
//   - Limits are reservations, too, so that the swarm's scheduler decides what runs
//     at once. Sidecars reserve little: only the build itself waits for room.
//   - No socket, no privileges: the machines are others.
//
// A job must not end before it is stopped: what a completed one has reserved is
// counted by the managers, which end running tasks for it (moby#52652), and where
// Docker is older than 23 it is never removed. So forgexec waits for Stop in the end,
// and if none comes it ends with an exit code that is a failure to the swarm.
//
// What a task says of itself is only ever about the machine. Of a task that is not
// listed nothing follows, least of all success. A job may run twice, after a change
// of the leader; the runner's token is what keeps the second from doing anything.
package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// Config of an engine.
type Config struct {
	// Host is a manager's Docker engine, "unix:///path" or "tcp://host:port".
	// Default: DOCKER_HOST, else Docker's socket.
	Host string
	// Instance tells what this Forge has made from what another one has in the same
	// swarm. It outlives restarts; replicas share it.
	Instance string
	// Image has forgexec in its PATH, for every platform of the swarm.
	Image string
	// ConfigFile has the credentials for registries, as "docker login" keeps them. It
	// is read for each attempt. Default: Docker's own, if there is one.
	ConfigFile string
	// Pids is how many processes and threads a container may have. Default: 4096.
	Pids int64
	// User runs the commands, "user", "uid" or "uid:gid". Default: the image's.
	User string
	// ReadOnly leaves the commands /tmp to write to, with their workspace in it.
	ReadOnly bool
	// Proxies and Environment are variables that every build has. What ConfigFile says
	// of proxies wins over the former, the latter over that.
	Proxies, Environment map[string]string
	// Constraints say which machines builds are placed on, in Docker's words, such as
	// "node.labels.builds==true"; ForkConstraints which those of forks. Default of the
	// latter: the former.
	Constraints, ForkConstraints []string
	// MTU of the builds' networks. Default: that of the driver.
	MTU int
	// ReadyWithin is how long sidecars may take. Default: 2 minutes.
	ReadyWithin time.Duration
	// RetryAfter is the first pause before what may pass is tried again; it doubles up
	// to a minute. Default: 5 seconds.
	RetryAfter time.Duration
	// Hold is how long forgexec, once all is over, waits for Stop. A job that ends by
	// itself keeps what it has reserved until it is removed, and Docker before 23 keeps
	// its container even then. Default: 10 minutes.
	Hold time.Duration
	// Log may be nil.
	Log *slog.Logger
}

const answerWithin = 10 * time.Second

// Engine runs builds as jobs of one swarm.
type Engine struct {
	*managers
	installer *installer

	mu    sync.Mutex
	empty map[string]time.Time // since when a job is known to have no task, by attempt
}

var _ engine.Engine = (*Engine)(nil)

// New says at once what keeps the engine from running builds, and has forgexec
// brought to the machines. The caller closes the engine.
func New(ctx context.Context, c Config) (*Engine, error) {
	if c.Instance == "" {
		return nil, errors.New("docker swarm: no name for this instance of Forge")
	}
	if c.Image == "" {
		return nil, errors.New("docker swarm: FORGE_FORGEXEC_IMAGE is not set, and this is no released version: " +
			"name an image with forgexec, made by deploy/Dockerfile, that every machine of the swarm can pull")
	}
	for _, expression := range append(c.Constraints, c.ForkConstraints...) {
		if err := checkConstraint(expression); err != nil {
			return nil, err
		}
	}
	c.Pids = cmp.Or(c.Pids, 4096)
	c.ReadyWithin = cmp.Or(c.ReadyWithin, 2*time.Minute)
	c.RetryAfter = cmp.Or(c.RetryAfter, 5*time.Second)
	c.Hold = cmp.Or(c.Hold, 10*time.Minute)
	if len(c.ForkConstraints) == 0 {
		c.ForkConstraints = c.Constraints
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ConfigFile == "" {
		c.ConfigFile = filepath.Join(config.Dir(), config.ConfigFileName)
	}
	options := []client.Opt{client.FromEnv}
	if c.Host != "" {
		options = append(options, client.WithHost(c.Host))
	}
	api, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("docker swarm: %w", err)
	}
	e := &Engine{
		managers:  &managers{config: c, client: api, registries: dockerapi.Registries{File: c.ConfigFile}, names: map[string]string{}},
		installer: newInstaller(c.Image), empty: map[string]time.Time{},
	}
	e.access = &dockerapi.Access{Registries: e.registries, Client: api}
	ctx, cancel := context.WithTimeout(ctx, answerWithin+dockerapi.InspectWithin)
	defer cancel()
	if err := e.checkSwarm(ctx); err != nil {
		return nil, errors.Join(err, api.Close())
	}
	if err := e.ensureInstaller(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("docker swarm: %w", err), api.Close())
	}
	return e, nil
}

// Name is "swarm".
func (e *Engine) Name() string { return "swarm" }

// Close closes the connections to the manager. Builds run on.
func (e *Engine) Close() error { return e.client.Close() }

// constraints are those of an attempt's machines, as people have set them.
func (e *Engine) constraints(spec engine.Spec) []string {
	if spec.Fork {
		return e.config.ForkConstraints
	}
	return e.config.Constraints
}
