package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// programName is that of forgexec, wherever it lies.
const programName = "forgexec"

// containersOf finds an attempt's, those that have ended too.
func (e *Engine) containersOf(ctx context.Context, attempt string) ([]container.Summary, error) {
	name := dockerapi.Name(attempt)
	found, err := e.client.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: e.labelled(dockerapi.InstanceLabel, e.config.Instance).Add("name", "^/?"+name+"(-|$)"),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return slices.DeleteFunc(found.Items, func(c container.Summary) bool { return attemptOf(c) != attempt }), nil
}

// containers finds this instance's, those that have ended too.
func (e *Engine) containers(ctx context.Context, label, value string) ([]container.Summary, error) {
	found, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelled(label, value)})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return found.Items, nil
}

func (e *Engine) labelled(label, value string) client.Filters {
	return dockerapi.Labelled(e.config.Instance, label, value)
}

// container says what an attempt's is to be like. Its image is there then.
func (e *Engine) container(ctx context.Context, spec engine.Spec) (creation, error) {
	dir, url, err := e.runner(spec.Runner.URL)
	if err != nil {
		return creation{}, err
	}
	if spec.Platform != "" && spec.Platform != e.forgexec.platform {
		return creation{}, fault.Newf(fault.Invalid, "it asks for platform %s, builds run on %s here", spec.Platform, e.forgexec.platform)
	}
	image, err := e.image(ctx, spec, spec.Image, spec.Platform)
	if err != nil {
		return creation{}, err
	}
	c := creation{image: image.ID, ContainerCreateOptions: e.limited(spec, dockerapi.Name(spec.Attempt), spec.Image, dockerapi.Labels(e.config.Instance, spec))}
	if spec.Platform != "" {
		asked := dockerapi.Platform(spec.Platform)
		c.Platform = &asked
	}
	own := dockerapi.OwnFolder(e.config.ReadOnly)
	environ, err := e.registries().Environ(e.client.DaemonHost(), e.config.Proxies, e.config.Environment, spec.Sidecars)
	if err != nil {
		return creation{}, err
	}
	c.Config.Env = slices.Concat(environ, spec.Runner.Environ(url), []string{"FORGE_WORKSPACE=" + path.Join(own, "workspace")})
	c.Config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}} // the image's is about its own program
	c.Config.User = e.config.User
	switch {
	case dir == "":
	case e.selinux: // only this older form can have it relabelled, for all containers
		c.HostConfig.Binds = []string{dir + ":" + dockerapi.RunnerFolder + ":ro,z"}
	default:
		c.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: dockerapi.RunnerFolder, ReadOnly: true}}
	}
	c.HostConfig.Init = new(bool) // forgexec is process 1, whatever the Docker engine's default
	if spec.Privileged {
		privilege(c.HostConfig)
	}
	for _, volume := range spec.Volumes {
		c.HostConfig.Mounts = append(c.HostConfig.Mounts, mount.Mount{Type: mount.TypeBind, Source: volume.Source, Target: volume.Target})
	}
	publish(c.ContainerCreateOptions, spec.Ports)

	program := path.Join(dockerapi.RunnerFolder, programName)
	if c.forgexec = !e.beside(spec.Runner.URL); c.forgexec {
		program = path.Join(own, programName)
	}
	c.Config.Entrypoint = append([]string{program}, e.forgexec.args...)
	// As root, forgexec makes the folder of its workspace; for others it must be there.
	user, _, _ := strings.Cut(cmp.Or(e.config.User, image.Config.User), ":")
	c.own = user != "" && user != "0" && user != "root" || e.config.ReadOnly
	if e.config.ReadOnly {
		c.HostConfig.ReadonlyRootfs = true
		c.HostConfig.Mounts = append(c.HostConfig.Mounts, mount.Mount{Type: mount.TypeVolume, Target: dockerapi.Home})
		c.HostConfig.Tmpfs = map[string]string{"/tmp": "exec,mode=1777"}
	}
	return c, nil
}

// limited is a container as all of a build's are: on its network, with its
// limits, and not able to gain anything.
func (e *Engine) limited(spec engine.Spec, name, image string, labels map[string]string) client.ContainerCreateOptions {
	options := client.ContainerCreateOptions{
		Name:   name,
		Config: &container.Config{Image: image, Labels: labels},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(dockerapi.Name(spec.Attempt)),
			SecurityOpt: []string{"no-new-privileges"},
			CapDrop:     []string{"NET_RAW"},
			// Of a build's own container only forgexec writes there, and hardly anything.
			LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
			Resources: container.Resources{
				NanoCPUs:   int64(spec.CPUs * 1e9),
				Memory:     spec.Memory,
				MemorySwap: spec.Memory, // memory and swap together
				PidsLimit:  &e.config.Pids,
			},
			ShmSize: dockerapi.SharedMemory(spec),
		},
	}
	if e.config.Disk != "" {
		options.HostConfig.StorageOpt = map[string]string{"size": e.config.Disk}
	}
	return options
}

// privilege takes away what keeps a container from the host.
func privilege(host *container.HostConfig) {
	host.Privileged, host.SecurityOpt, host.CapDrop = true, nil, nil
}

// creation is a container to be made, and what is to be put into it.
type creation struct {
	client.ContainerCreateOptions
	image    string // its id, which stays what it is
	own      bool   // the folder that anybody may write to
	forgexec bool
}

func (e *Engine) create(ctx context.Context, c creation) (id string, err error) {
	created, err := e.client.ContainerCreate(ctx, c.ContainerCreateOptions)
	if errdefs.IsInvalidArgument(err) { // less memory or more CPUs than Docker can give
		return "", fault.Newf(fault.Invalid, "the container cannot be made: %s", dockerapi.Plain(err))
	}
	if err != nil && strings.Contains(err.Error(), "--storage-opt") {
		return "", fault.Newf(fault.Invalid, "the Docker engine cannot bound the disk of a build (FORGE_BUILD_DISK): %s", dockerapi.Plain(err))
	}
	if err != nil {
		return "", full(fmt.Errorf("create container %s: %w", c.Name, err))
	}
	for _, warning := range created.Warnings {
		e.config.Log.WarnContext(ctx, "the Docker engine warns", "container", c.Name, "warning", warning)
	}
	if !c.own && !c.forgexec {
		return created.ID, nil
	}
	into, own := path.Split(dockerapi.OwnFolder(c.HostConfig.ReadonlyRootfs))
	err = e.forgexec.archive(own, c.forgexec, func(tar io.Reader) error {
		_, err := e.client.CopyToContainer(ctx, created.ID, client.CopyToContainerOptions{DestinationPath: into, Content: tar})
		return err
	})
	if err != nil {
		return "", full(fmt.Errorf("copy forgexec into container %s: %w", created.ID, err))
	}
	return created.ID, nil
}

// runner returns how forgexec reaches the scheduler from inside, and the directory
// that is mounted for that, "" for none. It is a socket's directory, not the socket:
// that would stay the old one when Forge starts again.
func (e *Engine) runner(url string) (dir, inside string, err error) {
	socket, local := strings.CutPrefix(url, "unix://")
	if !local {
		return "", url, nil
	}
	dir = filepath.Dir(socket)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("the runner's directory: %w", err)
	}
	other := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() != filepath.Base(socket) && !isProgram(e.Name()) })
	if other >= 0 {
		return "", "", fmt.Errorf("builds would see %s: the directory of the runner's socket must hold nothing else",
			filepath.Join(dir, entries[other].Name()))
	}
	if e.config.RunnerDir != "" {
		dir = e.config.RunnerDir
	}
	return dir, "unix://" + path.Join(dockerapi.RunnerFolder, filepath.Base(socket)), nil
}

// beside puts forgexec beside the runner's socket and reports whether containers
// can run it from there.
func (e *Engine) beside(url string) bool {
	socket, local := strings.CutPrefix(url, "unix://")
	if !local {
		return false
	}
	err := e.forgexec.place(filepath.Dir(socket))
	if err != nil {
		e.config.Log.Debug("forgexec is copied into each container", "why", err)
	}
	return err == nil
}
