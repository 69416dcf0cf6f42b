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
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// Labels of containers and networks. Forge finds its own by the first two; the
// others are for people.
const (
	instanceLabel   = "forge.instance"
	attemptLabel    = "forge.attempt"
	buildLabel      = "forge.build"
	repositoryLabel = "forge.repository"
	actionLabel     = "forge.action"
	sidecarLabel    = "forge.service" // its name; the build's own container has none
)

// Paths in the container.
const (
	home         = "/forge"
	runnerFolder = home + "/runner"
	programName  = "forgexec"
)

// ownFolder is the user's to write to, whoever that is in the image. Where all else
// is read-only it is in a volume, whose top nobody can be given through the API.
func ownFolder(readOnly bool) string {
	if readOnly {
		return home + "/own"
	}
	return home
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
	return client.Filters{}.Add("label", instanceLabel+"="+e.config.Instance, label+"="+value)
}

func (e *Engine) labels(spec engine.Spec) map[string]string {
	return map[string]string{
		instanceLabel: e.config.Instance, attemptLabel: spec.Attempt,
		buildLabel: spec.BuildID, repositoryLabel: spec.Repository, actionLabel: spec.Action,
	}
}

// container says what an attempt's is to be like. Its image is there then.
func (e *Engine) container(ctx context.Context, spec engine.Spec) (creation, error) {
	dir, url, err := e.runner(spec.Runner.URL)
	if err != nil {
		return creation{}, err
	}
	image, err := e.image(ctx, spec, spec.Image)
	if err != nil {
		return creation{}, err
	}
	c := creation{ContainerCreateOptions: e.limited(spec, name(spec.Attempt), spec.Image, e.labels(spec))}
	own := ownFolder(e.config.ReadOnly)
	environ, err := e.environ(spec)
	if err != nil {
		return creation{}, err
	}
	c.Config.Env = slices.Concat(environ, spec.Runner.Environ(url), []string{"FORGE_WORKSPACE=" + path.Join(own, "workspace")})
	c.Config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}} // the image's is about its own program
	c.Config.User = e.config.User
	switch {
	case dir == "":
	case e.selinux: // only this older form can have it relabelled, for all containers
		c.HostConfig.Binds = []string{dir + ":" + runnerFolder + ":ro,z"}
	default:
		c.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: runnerFolder, ReadOnly: true}}
	}
	c.HostConfig.Init = new(bool) // forgexec is process 1, whatever the Docker engine's default
	if spec.Privileged {
		privilege(c.HostConfig)
	}
	for _, volume := range spec.Volumes {
		c.HostConfig.Mounts = append(c.HostConfig.Mounts, mount.Mount{Type: mount.TypeBind, Source: volume.Source, Target: volume.Target})
	}
	publish(c.ContainerCreateOptions, spec.Ports)

	program := path.Join(runnerFolder, programName)
	if c.forgexec = !e.beside(spec.Runner.URL); c.forgexec {
		program = path.Join(own, programName)
	}
	c.Config.Entrypoint = append([]string{program}, e.forgexec.args...)
	// As root, forgexec makes the folder of its workspace; for others it must be there.
	user, _, _ := strings.Cut(cmp.Or(e.config.User, image.Config.User), ":")
	c.own = user != "" && user != "0" && user != "root" || e.config.ReadOnly
	if e.config.ReadOnly {
		c.HostConfig.ReadonlyRootfs = true
		c.HostConfig.Mounts = append(c.HostConfig.Mounts, mount.Mount{Type: mount.TypeVolume, Target: home})
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
			NetworkMode: container.NetworkMode(networkName(spec.Attempt)),
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
			ShmSize: sharedMemory(spec),
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

// sharedMemory is the size of /dev/shm. Docker's own 64 MB are too little for
// browsers and databases; more than the memory can never be filled.
func sharedMemory(spec engine.Spec) int64 {
	const usual = 1 << 30
	size := spec.SharedMemory
	switch {
	case size == 0 && spec.Memory > 0:
		size = spec.Memory / 2
	case size == 0:
		size = usual
	case spec.Memory > 0:
		size = min(size, spec.Memory)
	}
	return size
}

// creation is a container to be made, and what is to be put into it.
type creation struct {
	client.ContainerCreateOptions
	own      bool // the folder that anybody may write to
	forgexec bool
}

func (e *Engine) create(ctx context.Context, c creation) (id string, err error) {
	created, err := e.client.ContainerCreate(ctx, c.ContainerCreateOptions)
	if errdefs.IsInvalidArgument(err) { // less memory or more CPUs than Docker can give
		return "", fault.Newf(fault.Invalid, "the container cannot be made: %s", plain(err))
	}
	if err != nil && strings.Contains(err.Error(), "--storage-opt") {
		return "", fault.Newf(fault.Invalid, "the Docker engine cannot bound the disk of a build (FORGE_DOCKER_DISK): %s", plain(err))
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
	into, own := path.Split(ownFolder(c.HostConfig.ReadonlyRootfs))
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
	return dir, "unix://" + path.Join(runnerFolder, filepath.Base(socket)), nil
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

// name is that of the attempt's container.
func name(attempt string) string { return "forge-" + attempt }

func check(spec engine.Spec) error {
	if spec.Runner.URL == "" || spec.Runner.Token == "" {
		return fault.Newf(fault.Invalid, "attempt %s: the runner's URL and token are missing", spec.Attempt)
	}
	if spec.Fork && (spec.Privileged || len(spec.Volumes) > 0 || slices.ContainsFunc(spec.Sidecars, func(s engine.Sidecar) bool { return s.Privileged })) {
		return fault.Newf(fault.Invalid, "attempt %s: a fork's build is never given the host", spec.Attempt)
	}
	return checkName(spec.Attempt)
}

func checkName(attempt string) error {
	if !attemptName().MatchString(attempt) {
		return fault.Newf(fault.Invalid, "attempt %q: a name is 1 to 40 characters out of a-z, 0-9 and -", attempt)
	}
	return nil
}

// attemptName is as engine.Spec says.
var attemptName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// plain is what the Docker engine says, without the client's introduction.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "Error response from daemon: ") }
