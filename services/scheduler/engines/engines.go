package engines

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
	"github.com/forge-ci/forge/services/scheduler/engine/process"
	"github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

// Config is what any engine may need.
type Config struct {
	Name     string // of the engine
	DataDir  string // where it keeps what it must
	Instance string // of this Forge, see scheduler.Instance
	// Waiting is how many containers wait for builds, of the engines that can have them wait.
	Waiting int
	// Sparing: fewer, where memory is short.
	Sparing bool
	// Alone: no other process has this Instance.
	Alone bool
	Build Build
	Swarm Swarm
	Log   *slog.Logger
	// Getenv is this process's environment. Default: os.Getenv.
	Getenv func(string) string
}

// Build is what people set of builds, whatever engine runs them. See docker.Config
// for what each means to containers.
type Build struct {
	// Environment is what every build has; .forge.yml wins over it.
	Environment map[string]string
	// MTU of their networks; 0 is the engine's.
	MTU int
	// Pull is when images are pulled, a docker.Pull.
	Pull           string
	RegistriesFile string // with credentials, as docker login keeps them
	Pids           int64
	Disk           string
	User           string
	ReadOnly       bool
	RunnerDir      string
}

// Swarm is what people set of the swarm engine alone. See swarm.Config.
type Swarm struct {
	ForgexecImage                string
	Constraints, ForkConstraints []string
	MTU                          int
}

// maker makes an engine; forgexec is its command line.
type maker func(ctx context.Context, c Config, forgexec []string) (engine.Engine, error)

// engines is every engine, by the name it is set by.
func engines() []struct {
	name string
	make maker
} {
	return []struct {
		name string
		make maker
	}{
		{"docker", func(ctx context.Context, c Config, forgexec []string) (engine.Engine, error) {
			return docker.New(ctx, docker.Config{
				Instance: c.Instance, Forgexec: forgexec, RunnerDir: c.Build.RunnerDir,
				Pull: docker.Pull(c.Build.Pull), ConfigFile: c.Build.RegistriesFile,
				Proxies: c.proxies(), Environment: c.Build.Environment, MTU: c.Build.MTU,
				Pids: c.Build.Pids, Disk: c.Build.Disk, User: c.Build.User, ReadOnly: c.Build.ReadOnly,
				Waiting: c.Waiting, Sparing: c.Sparing, Alone: c.Alone, Log: c.Log,
			})
		}},
		{"process", func(_ context.Context, c Config, forgexec []string) (engine.Engine, error) {
			environment := c.proxies()
			maps.Copy(environment, c.Build.Environment)
			return process.New(process.Config{Dir: filepath.Join(c.DataDir, "process"), Forgexec: forgexec, Environment: environment, Log: c.Log})
		}},
		{"swarm", func(ctx context.Context, c Config, _ []string) (engine.Engine, error) {
			return swarm.New(ctx, swarm.Config{
				Instance: c.Instance, Image: c.Swarm.ForgexecImage, ConfigFile: c.Build.RegistriesFile,
				Proxies: c.proxies(), Environment: c.Build.Environment, MTU: c.Swarm.MTU,
				Constraints: c.Swarm.Constraints, ForkConstraints: c.Swarm.ForkConstraints,
				Pids: c.Build.Pids, User: c.Build.User, ReadOnly: c.Build.ReadOnly, Log: c.Log,
			})
		}},
	}
}

func (c Config) proxies() map[string]string {
	if c.Getenv == nil {
		return engine.Proxies(os.Getenv)
	}
	return engine.Proxies(c.Getenv)
}

// check refuses variables that no process can have, and those that are Forge's own.
func (b Build) check() error {
	for name := range b.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.HasPrefix(name, "FORGE_") {
			return fmt.Errorf("FORGE_BUILD_ENVIRONMENT: %q cannot be the name of a variable of builds; FORGE_… are Forge's own", name)
		}
	}
	return nil
}

// Names lists the engines for people.
func Names() string {
	var names []string
	for _, e := range engines() {
		names = append(names, e.name)
	}
	return strings.Join(names, ", ")
}

// DockerAnswers reports whether a Docker engine answers this user.
func DockerAnswers(ctx context.Context) bool { return docker.Answers(ctx) }

// New makes the engine that c names. One that does not answer is an error.
func New(ctx context.Context, c Config) (engine.Engine, error) {
	for _, e := range engines() {
		if e.name != c.Name {
			continue
		}
		if err := c.Build.check(); err != nil {
			return nil, err
		}
		path, args, err := Forgexec()
		if err != nil {
			return nil, err
		}
		made, err := e.make(ctx, c, append([]string{path}, args...))
		if err != nil {
			return nil, fmt.Errorf("FORGE_ENGINE=%s: %w", c.Name, err)
		}
		return made, nil
	}
	return nil, fmt.Errorf("FORGE_ENGINE is %q: use one of %s", c.Name, Names())
}
