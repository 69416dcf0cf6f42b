package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler"
)

// Labels of containers and networks. Forge finds its own by the first two; the
// others are for people.
const (
	instanceLabel   = "forge.instance"
	attemptLabel    = "forge.attempt"
	buildLabel      = "forge.build"
	repositoryLabel = "forge.repository"
	actionLabel     = "forge.action"
)

// Paths in the container. The home is the user's to write to, whoever that is in
// the image.
const (
	home         = "/forge"
	programPath  = home + "/forgexec"
	workspace    = home + "/workspace"
	runnerFolder = home + "/runner"
)

// containers finds this instance's, those that have ended too.
func (e *Engine) containers(ctx context.Context, label, value string) ([]container.Summary, error) {
	found, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelled(label, value)})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return found.Items, nil
}

func (e *Engine) networks(ctx context.Context, attempt string) ([]network.Summary, error) {
	found, err := e.client.NetworkList(ctx, client.NetworkListOptions{Filters: e.labelled(attemptLabel, attempt)})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	return found.Items, nil
}

func (e *Engine) labelled(label, value string) client.Filters {
	return client.Filters{}.Add("label", instanceLabel+"="+e.config.Instance, label+"="+value)
}

func (e *Engine) labels(spec scheduler.Spec) map[string]string {
	return map[string]string{
		instanceLabel: e.config.Instance, attemptLabel: spec.Attempt,
		buildLabel: spec.BuildID, repositoryLabel: spec.Repository, actionLabel: spec.Action,
	}
}

// network makes the attempt's network, unless it is there.
func (e *Engine) network(ctx context.Context, spec scheduler.Spec) error {
	found, err := e.networks(ctx, spec.Attempt)
	if err != nil || len(found) > 0 {
		return err
	}
	options := client.NetworkCreateOptions{Driver: "bridge", Labels: e.labels(spec)}
	if _, err := e.client.NetworkCreate(ctx, name(spec.Attempt), options); err != nil {
		return fmt.Errorf("create the network of attempt %s: %w", spec.Attempt, err)
	}
	return nil
}

// container says what an attempt's is to be like. Its image is there then.
func (e *Engine) container(ctx context.Context, spec scheduler.Spec) (client.ContainerCreateOptions, error) {
	mounts, url, err := e.runner(spec.Runner.URL)
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	notice, err := e.image(ctx, spec.Image)
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	return client.ContainerCreateOptions{
		Name: name(spec.Attempt),
		Config: &container.Config{
			Image:       spec.Image,
			Entrypoint:  append([]string{programPath}, e.forgexec.args...),
			Env:         append(spec.Runner.Environ(url), "FORGE_RUNNER_NOTICE="+notice, "FORGE_WORKSPACE="+workspace),
			Labels:      e.labels(spec),
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // the image's is about its own program
		},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(name(spec.Attempt)),
			Mounts:      mounts,
			SecurityOpt: []string{"no-new-privileges"},
			CapDrop:     []string{"NET_RAW"},
			Init:        new(bool), // forgexec is process 1, whatever the Docker engine's default
			// Only forgexec itself writes there, and hardly anything.
			LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
			Resources: container.Resources{
				NanoCPUs:   int64(spec.CPUs * 1e9),
				Memory:     spec.Memory,
				MemorySwap: spec.Memory, // memory and swap together
				PidsLimit:  &e.config.Pids,
			},
		},
	}, nil
}

func (e *Engine) create(ctx context.Context, options client.ContainerCreateOptions) (id string, err error) {
	created, err := e.client.ContainerCreate(ctx, options)
	if errdefs.IsInvalidArgument(err) { // less memory or more CPUs than Docker can give
		return "", fault.Newf(fault.Invalid, "the container cannot be made: %s", plain(err))
	}
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", options.Name, err)
	}
	for _, warning := range created.Warnings {
		e.config.Log.WarnContext(ctx, "the Docker engine warns", "container", options.Name, "warning", warning)
	}
	return created.ID, nil
}

func (e *Engine) bringForgexec(ctx context.Context, id string) error {
	err := e.forgexec.archive(func(tar io.Reader) error {
		_, err := e.client.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: tar})
		return err
	})
	if err != nil {
		return fmt.Errorf("copy forgexec into container %s: %w", id, err)
	}
	return nil
}

// runner returns how forgexec reaches the scheduler from inside. A socket's
// directory is mounted, not the socket: that would stay the old one when Forge
// starts again.
func (e *Engine) runner(url string) ([]mount.Mount, string, error) {
	socket, local := strings.CutPrefix(url, "unix://")
	if !local {
		return nil, url, nil
	}
	dir := filepath.Dir(socket)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("the runner's directory: %w", err)
	}
	other := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() != filepath.Base(socket) })
	if other >= 0 {
		return nil, "", fmt.Errorf("builds would see %s: the directory of the runner's socket must hold nothing else",
			filepath.Join(dir, entries[other].Name()))
	}
	if e.config.RunnerDir != "" {
		dir = e.config.RunnerDir
	}
	return []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: runnerFolder, ReadOnly: true}},
		"unix://" + path.Join(runnerFolder, filepath.Base(socket)), nil
}

// name is that of the attempt's container, and of its network.
func name(attempt string) string { return "forge-" + attempt }

func check(spec scheduler.Spec) error {
	if spec.Runner.URL == "" || spec.Runner.Token == "" {
		return fault.Newf(fault.Invalid, "attempt %s: the runner's URL and token are missing", spec.Attempt)
	}
	return checkName(spec.Attempt)
}

func checkName(attempt string) error {
	if !attemptName().MatchString(attempt) {
		return fault.Newf(fault.Invalid, "attempt %q: a name is 1 to 40 characters out of a-z, 0-9 and -", attempt)
	}
	return nil
}

// attemptName is as scheduler.Spec says.
var attemptName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// plain is what the Docker engine says, without the client's introduction.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "Error response from daemon: ") }
