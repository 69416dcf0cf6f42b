package swarm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	// volume is on each machine, for every Forge of the swarm.
	volume = "forge-forgexec"
	// folder is where the installer sees it.
	folder = "/volume"
	// installerLabel is on installers: the hash of their image's name. usedLabel is on
	// the jobs that run what it has installed. wantedLabel is the day on which a Forge
	// last said that it needs an installer.
	installerLabel = "forge.installer"
	usedLabel      = "forge.forgexec"
	wantedLabel    = "forge.wanted"

	ensureEvery = time.Minute
	// unwantedAfter is how long an installer stays that no Forge asks for.
	unwantedAfter = 7 * 24 * time.Hour
)

// installer is the service that brings forgexec to the machines. Each image has one
// of its own, and each a file of its own in the volume: two versions of Forge do not
// touch each other's.
type installer struct {
	image, hash string

	mu      sync.Mutex
	ensured time.Time
}

func newInstaller(image string) *installer {
	return &installer{image: image, hash: fmt.Sprintf("%x", sha256.Sum256([]byte(image)))[:8]}
}

func (i *installer) name() string { return "forge-forgexec-" + i.hash }

// program is the name of the file that it installs.
func (i *installer) program() string { return "forgexec-" + i.hash }

// ensureInstaller makes the installer unless it is there, and removes those that
// nobody wants any more. It asks once in a minute at most.
func (e *Engine) ensureInstaller(ctx context.Context) error {
	e.installer.mu.Lock()
	defer e.installer.mu.Unlock()
	if time.Since(e.installer.ensured) < ensureEvery {
		return nil
	}
	found, err := e.client.ServiceList(ctx, client.ServiceListOptions{Filters: client.Filters{}.Add("label", installerLabel)})
	if err != nil {
		return fmt.Errorf("list the installers of forgexec: %w", err)
	}
	there := false
	for _, service := range found.Items {
		if service.Spec.Labels[installerLabel] == e.installer.hash {
			there = true
			if err := e.wantInstaller(ctx, service); err != nil {
				return err
			}
		} else if err := e.removeUnwanted(ctx, service); err != nil {
			return err
		}
	}
	if !there {
		if err := e.createInstaller(ctx); err != nil {
			return err
		}
	}
	e.installer.ensured = time.Now()
	return nil
}

// wantInstaller notes once a day that it is needed. Its tasks run on.
func (e *Engine) wantInstaller(ctx context.Context, service swarm.Service) error {
	spec := service.Spec
	if spec.Labels[wantedLabel] == today() {
		return nil
	}
	spec.Labels = maps.Clone(spec.Labels)
	spec.Labels[wantedLabel] = today()
	_, err := e.client.ServiceUpdate(ctx, service.ID, client.ServiceUpdateOptions{Version: service.Version, Spec: spec, RegistryAuthFrom: swarm.RegistryAuthFromSpec})
	if err != nil && !outOfSequence(err) && !errdefs.IsNotFound(err) {
		return fmt.Errorf("update %s: %w", service.Spec.Name, err)
	}
	return nil
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// removeUnwanted removes another version's installer that is not needed any more.
func (e *Engine) removeUnwanted(ctx context.Context, service swarm.Service) error {
	wanted, err := time.Parse(time.DateOnly, service.Spec.Labels[wantedLabel])
	if err != nil || time.Since(wanted) < unwantedAfter {
		return nil //nolint:nilerr // not of a version that this one knows
	}
	users, err := e.client.ServiceList(ctx, client.ServiceListOptions{
		Filters: client.Filters{}.Add("label", usedLabel+"="+service.Spec.Labels[installerLabel]),
	})
	if err != nil {
		return fmt.Errorf("list the jobs that %s serves: %w", service.Spec.Name, err)
	}
	if len(users.Items) > 0 {
		return nil
	}
	if _, err := e.client.ServiceRemove(ctx, service.ID, client.ServiceRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", service.Spec.Name, err)
	}
	e.config.Log.InfoContext(ctx, "an installer that no Forge has asked for was removed", "service", service.Spec.Name, "for", unwantedAfter)
	return nil
}

func (e *Engine) createInstaller(ctx context.Context) error {
	i := e.installer
	image, err := e.resolve(ctx, engine.Spec{}, i.image, "")
	if err != nil {
		return fmt.Errorf("FORGE_FORGEXEC_IMAGE: %w", err)
	}
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: i.name(), Labels: map[string]string{installerLabel: i.hash, wantedLabel: today()}},
		Mode:        swarm.ServiceMode{Global: &swarm.GlobalService{}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image:   image.pinned,
				Command: []string{"forgexec"},
				Args:    []string{"--install", folder, "--as", i.program(), "--stay"},
				// The volume's folder is root's, whoever that is on the machine.
				User: "0:0", ReadOnly: true, CapabilityDrop: []string{"ALL"}, Init: new(bool),
				Privileges: &swarm.Privileges{NoNewPrivileges: true},
				Mounts:     []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: folder}},
				Healthcheck: &container.HealthConfig{
					Test:     []string{"CMD", "forgexec", "--installed", folder, "--as", i.program()},
					Interval: 5 * time.Second, StartInterval: 500 * time.Millisecond, StartPeriod: time.Minute,
				},
			},
			Resources: &swarm.ResourceRequirements{Limits: &swarm.Limit{MemoryBytes: 32 << 20, Pids: 64}},
			Placement: &swarm.Placement{Platforms: image.platforms},
			LogDriver: logDriver(),
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
	}
	_, err = e.client.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: spec, EncodedRegistryAuth: image.login.Auth})
	if err != nil && !nameTaken(err) { // another replica was faster
		return fmt.Errorf("create %s: %w", i.name(), err)
	}
	return nil
}

// lacking are the machines that take tasks and have no forgexec yet. why is what
// keeps the installer from it, once there is something to say; have is how many
// machines have it.
func (e *Engine) lacking(ctx context.Context, nodes map[string]swarm.Node) (ids []string, have int, why string, err error) {
	found, err := e.client.TaskList(ctx, client.TaskListOptions{Filters: client.Filters{}.Add("service", e.installer.name())})
	if err != nil {
		return nil, 0, "", fmt.Errorf("list the tasks of %s: %w", e.installer.name(), err)
	}
	ready := map[string]bool{}
	newest := time.Time{}
	for _, task := range found.Items {
		if task.Status.State == swarm.TaskStateRunning && task.DesiredState == swarm.TaskStateRunning {
			ready[task.NodeID] = true
		}
		if task.Status.Err != "" && task.Status.Timestamp.After(newest) {
			newest, why = task.Status.Timestamp, oneLine(task.Status.Err)
		}
	}
	for id, node := range nodes {
		switch {
		case !takesTasks(node):
		case ready[id]:
			have++
		default:
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, have, why, nil
}

// programPath is forgexec in the builds' containers.
func (i *installer) programPath() string { return dockerapi.RunnerFolder + "/" + i.program() }

// nameTaken reports whether an object of this name is there already.
func nameTaken(err error) bool {
	return errdefs.IsConflict(err) || errdefs.IsAlreadyExists(err) || strings.Contains(err.Error(), "name conflicts with an existing object") ||
		strings.Contains(err.Error(), "already exists")
}

// outOfSequence reports whether an object has changed since it was read.
func outOfSequence(err error) bool { return strings.Contains(err.Error(), "update out of sequence") }
