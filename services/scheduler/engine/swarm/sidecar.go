package swarm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// checkEvery is how often a sidecar's health check runs. Images name half a minute
// and the like, which is for programs that run for days.
const checkEvery = 2 * time.Second

// startSidecar returns when it is ready, as far as its machine sees that: when its
// health check passes, else when it runs. Whether it listens forgexec finds out.
func (e *Engine) startSidecar(ctx context.Context, build *unit, number int, networkID string) error {
	s := build.spec.Sidecars[number]
	u := &unit{
		spec: build.spec, name: fmt.Sprintf("%s-s%d", build.name, number), sidecar: &s, imageName: s.Image,
		constraints: build.constraints, waiting: engine.NewWaiting(build.spec, nil),
	}
	service, err := e.find(ctx, u.name)
	if err != nil {
		return err
	}
	if service == nil {
		resolved, err := e.resolve(ctx, u.spec, s.Image, "")
		if err != nil {
			return err
		}
		u.image = &resolved
		if service, err = e.create(ctx, e.sidecar(u, networkID), resolved.login.Auth); err != nil {
			return err
		}
	}
	return e.await(ctx, u, service.ID)
}

// sidecar is the service of one, as it is made.
func (e *Engine) sidecar(u *unit, networkID string) swarm.ServiceSpec {
	s, one := u.sidecar, uint64(1)
	service := e.service(u.spec, u.name, *u.image, u.constraints)
	service.Labels[dockerapi.SidecarLabel] = s.Name
	service.Mode.Replicated = &swarm.ReplicatedService{Replicas: &one}
	service.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: networkID, Aliases: []string{s.Name}}}
	service.TaskTemplate.Resources.Reservations = &swarm.Resources{NanoCPUs: sidecarCPU, MemoryBytes: sidecarMemory}

	c := service.TaskTemplate.ContainerSpec
	c.Labels[dockerapi.SidecarLabel] = s.Name
	c.Hostname, c.Command, c.Args = s.Name, s.Entrypoint, s.Command
	for _, variable := range slices.Sorted(maps.Keys(s.Environment)) {
		c.Env = append(c.Env, variable+"="+s.Environment[variable])
	}
	c.Healthcheck = e.healthcheck(s)
	grace := time.Second // nobody needs its last words
	c.StopGracePeriod = &grace
	return service
}

// healthcheck says when a sidecar is ready. While it starts, no check counts against
// it. An empty test is that of the image, if it has one.
func (e *Engine) healthcheck(s *engine.Sidecar) *container.HealthConfig {
	check := &container.HealthConfig{Interval: checkEvery, StartPeriod: e.readyWithin(s)}
	switch {
	case s.Ready.Run != "":
		check.Test = []string{"CMD-SHELL", s.Ready.Run}
	case s.Ready.Port != 0:
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	return check
}

func (e *Engine) readyWithin(s *engine.Sidecar) time.Duration {
	return cmp.Or(s.Ready.Within, e.config.ReadyWithin)
}

// awaited tells forgexec which addresses it is to wait for before the first step.
func (e *Engine) awaited(sidecars []engine.Sidecar) []string {
	var addresses []string
	for _, s := range sidecars {
		if s.Ready.Run == "" && s.Ready.Port != 0 {
			addresses = append(addresses, fmt.Sprintf("%s=%s:%d/%v", s.Name, s.Name, s.Ready.Port, e.readyWithin(&s)))
		}
	}
	if len(addresses) == 0 {
		return nil
	}
	return []string{"FORGE_RUNNER_AWAIT=" + strings.Join(addresses, ",")}
}

// sidecarEnded is nil for a build's own container, whose end is told elsewhere.
func (e *Engine) sidecarEnded(ctx context.Context, u *unit, task swarm.Task) error {
	if u.sidecar == nil {
		return nil
	}
	e.sayLastLines(ctx, u)
	why := fmt.Sprintf("ended with exit code %d before it was ready", task.Status.ContainerStatus.ExitCode)
	if strings.Contains(task.Status.Err, "unhealthy") {
		why = "is not healthy"
	}
	return fault.Newf(fault.Invalid, "%s %s; its last lines are in the log", u.sidecar.Image, why)
}

// unready is for a sidecar whose health check takes too long to pass.
func (e *Engine) unready(ctx context.Context, u *unit, task swarm.Task) error {
	if u.sidecar == nil || task.Status.State != swarm.TaskStateStarting {
		return nil
	}
	if u.starting.IsZero() {
		u.starting = time.Now()
	}
	within := e.readyWithin(u.sidecar)
	if time.Since(u.starting) < within {
		return nil
	}
	e.sayLastLines(ctx, u)
	return fault.Newf(fault.Invalid, "%s was not healthy within %v; its last lines are in the log", u.sidecar.Image, within)
}

// sayLastLines puts what a sidecar printed last into the build's log.
func (e *Engine) sayLastLines(ctx context.Context, u *unit) {
	text, err := e.lastOutput(ctx, u.name)
	if err != nil {
		e.config.Log.WarnContext(ctx, "the log of a service breaks off", "attempt", u.spec.Attempt, "service", u.sidecar.Name, "error", err)
	}
	for line := range strings.Lines(text) {
		u.spec.Sayf("%s | %s", u.sidecar.Name, strings.TrimRight(line, "\r\n"))
	}
}
