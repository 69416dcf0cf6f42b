package swarm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	// workspace is in /tmp, since that alone can be written to whoever the image's
	// user is.
	workspace = "/tmp/forge/workspace"
	// stopGrace is how long forgexec has to report its last words when its machine is
	// shut down, or its constraints are not met any more.
	stopGrace = 40 * time.Second
	// What a build reserves that has no limits, and what each sidecar does.
	usualCPU      = 1_000_000_000
	usualMemory   = 1 << 30
	sidecarCPU    = 50_000_000
	sidecarMemory = 64 << 20
)

// job is the service of a build's own container, as it is made.
func (e *Engine) job(spec engine.Spec, i image, networkID string, constraints []string) (swarm.ServiceSpec, error) {
	environ, err := e.registries.Environ(e.client.DaemonHost(), e.config.Proxies, e.config.Environment, spec.Sidecars)
	if err != nil {
		return swarm.ServiceSpec{}, err
	}
	one := uint64(1)
	job := e.service(spec, dockerapi.Name(spec.Attempt), i, constraints)
	job.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}
	job.Labels[usedLabel] = e.installer.hash
	job.EndpointSpec.Ports = hostPorts(spec.Ports)
	job.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: networkID}}
	job.TaskTemplate.Resources.Reservations = reservations(spec)

	c := job.TaskTemplate.ContainerSpec
	c.Command = []string{e.installer.programPath()}
	c.Env = slices.Concat(environ, spec.Runner.Environ(spec.Runner.URL), e.awaited(spec.Sidecars), []string{"FORGE_WORKSPACE=" + workspace, "FORGE_RUNNER_HOLD=" + e.config.Hold.String()})
	c.User = e.config.User
	c.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}} // the image's is about its own program
	c.Mounts = append(c.Mounts, mount.Mount{
		Type: mount.TypeVolume, Source: volume, Target: dockerapi.RunnerFolder, ReadOnly: true, VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	})
	for _, v := range spec.Volumes {
		c.Mounts = append(c.Mounts, mount.Mount{Type: mount.TypeBind, Source: v.Source, Target: v.Target})
	}
	if e.config.ReadOnly {
		c.ReadOnly = true
		c.Mounts = append(c.Mounts, mount.Mount{Type: mount.TypeVolume, Target: "/tmp"}) // its top is as the image's
	}
	return job, nil
}

// service is one as all of a build's are: with its limits, and not able to gain
// anything.
func (e *Engine) service(spec engine.Spec, name string, i image, constraints []string) swarm.ServiceSpec {
	labels := dockerapi.Labels(e.config.Instance, spec)
	grace := stopGrace
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name, Labels: labels},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image:           i.pinned,
				Labels:          maps.Clone(labels),
				Init:            new(bool), // forgexec is process 1, whatever the Docker engine's default
				CapabilityDrop:  []string{"NET_RAW"},
				Privileges:      &swarm.Privileges{NoNewPrivileges: true},
				StopGracePeriod: &grace,
				Mounts: []mount.Mount{{
					Type: mount.TypeTmpfs, Target: "/dev/shm",
					TmpfsOptions: &mount.TmpfsOptions{SizeBytes: dockerapi.SharedMemory(spec), Mode: 0o1777},
				}},
			},
			Resources:     &swarm.ResourceRequirements{Limits: e.limits(spec), SwapBytes: noSwap(spec)},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
			Placement:     &swarm.Placement{Constraints: constraints, Platforms: i.platforms},
			LogDriver:     logDriver(),
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
	}
}

func (e *Engine) limits(spec engine.Spec) *swarm.Limit {
	return &swarm.Limit{NanoCPUs: int64(spec.CPUs * 1e9), MemoryBytes: spec.Memory, Pids: e.config.Pids}
}

// noSwap leaves a container with a limit of memory no swap besides.
func noSwap(spec engine.Spec) *int64 {
	if spec.Memory == 0 {
		return nil
	}
	return new(int64)
}

func reservations(spec engine.Spec) *swarm.Resources {
	r := &swarm.Resources{NanoCPUs: int64(spec.CPUs * 1e9), MemoryBytes: spec.Memory}
	if r.NanoCPUs == 0 {
		r.NanoCPUs = usualCPU
	}
	if r.MemoryBytes == 0 {
		r.MemoryBytes = usualMemory
	}
	return r
}

// logDriver is for what forgexec writes of itself, which is hardly anything, and for
// the last lines of sidecars.
func logDriver() *swarm.Driver {
	return &swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m", "max-file": "1"}}
}

// hostPorts have ports of the machine lead to the container.
func hostPorts(ports []engine.Port) []swarm.PortConfig {
	var published []swarm.PortConfig
	for _, p := range ports {
		published = append(published, swarm.PortConfig{
			Protocol: network.TCP, PublishMode: swarm.PortConfigPublishModeHost, TargetPort: uint32(p.Container), PublishedPort: uint32(p.Host),
		})
	}
	return published
}

// find returns the service of this name; nil where there is none.
func (m *managers) find(ctx context.Context, name string) (*swarm.Service, error) {
	found, err := m.client.ServiceInspect(ctx, name, client.ServiceInspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return nil, nil //nolint:nilnil // nothing is there
	case err != nil:
		return nil, fmt.Errorf("inspect service %s: %w", name, err)
	case found.Service.Spec.Labels[dockerapi.InstanceLabel] != m.config.Instance:
		return nil, fault.Newf(fault.Invalid, "a service %s is there, and it is not of this Forge", name)
	}
	return &found.Service, nil
}

// create makes a service and returns what is there of that name then, which a Start
// that ran beside this one may have made.
func (m *managers) create(ctx context.Context, spec swarm.ServiceSpec, auth string) (*swarm.Service, error) {
	made, err := m.client.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: spec, EncodedRegistryAuth: auth})
	switch {
	case err == nil:
	case errdefs.IsInvalidArgument(err):
		return nil, fault.Newf(fault.Invalid, "the container cannot be made: %s", oneLine(dockerapi.Plain(err)))
	case !nameTaken(err):
		return nil, fmt.Errorf("create service %s: %w", spec.Name, err)
	}
	for _, warning := range made.Warnings {
		m.config.Log.WarnContext(ctx, "the Docker engine warns", "service", spec.Name, "warning", warning)
	}
	there, err := m.find(ctx, spec.Name)
	if err == nil && there == nil {
		return nil, fmt.Errorf("service %s was removed while it was made", spec.Name)
	}
	return there, err
}

// stopping reports whether a Stop has begun with the service.
func stopping(service *swarm.Service) bool {
	switch mode := service.Spec.Mode; {
	case mode.ReplicatedJob != nil:
		return mode.ReplicatedJob.TotalCompletions != nil && *mode.ReplicatedJob.TotalCompletions == 0
	case mode.Replicated != nil:
		return mode.Replicated.Replicas != nil && *mode.Replicated.Replicas == 0
	}
	return false
}
