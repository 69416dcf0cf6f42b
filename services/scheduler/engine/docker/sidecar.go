package docker

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	// checkEvery is how often a sidecar's health check runs. Images name half a
	// minute and the like, which is for programs that run for days.
	checkEvery = 2 * time.Second
	// lastLines of a sidecar's log say why it is not ready.
	lastLines = "30"
)

// sidecar is one to be started, or one that a Start before has made.
type sidecar struct {
	engine.Sidecar
	id       string // empty: to be made
	creation creation
	ports    []string // one of which answers when it is ready; none where a health check says
	within   time.Duration
}

// sidecars says what they are to be like, their images being there then. made are
// the ids of those that are there.
func (e *Engine) sidecars(ctx context.Context, spec engine.Spec, made map[string]string) ([]sidecar, error) {
	all := make([]sidecar, len(spec.Sidecars))
	var pulls errgroup.Group
	for i, one := range spec.Sidecars {
		pulls.Go(func() error {
			image, err := e.image(ctx, spec, one.Image, "")
			if err != nil {
				return fmt.Errorf("service %s: %w", one.Name, err)
			}
			labels := dockerapi.Labels(e.config.Instance, spec)
			labels[dockerapi.SidecarLabel] = one.Name
			options := e.limited(spec, dockerapi.Name(spec.Attempt)+"-"+one.Name, one.Image, labels)
			options.Config.Hostname = one.Name
			if one.Privileged {
				privilege(options.HostConfig)
			}
			for _, variable := range slices.Sorted(maps.Keys(one.Environment)) {
				options.Config.Env = append(options.Config.Env, variable+"="+one.Environment[variable])
			}
			options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				dockerapi.Name(spec.Attempt): {Aliases: []string{one.Name}},
			}}
			options.Config.Cmd, options.Config.Entrypoint = one.Command, one.Entrypoint
			s := sidecar{
				Sidecar: one, id: made[one.Name], creation: creation{ContainerCreateOptions: options},
				within: cmp.Or(one.Ready.Within, e.config.ReadyWithin),
			}
			s.watch(image.Config)
			all[i] = s
			return nil
		})
	}
	return all, pulls.Wait()
}

// watch settles how it is seen that the sidecar is ready.
func (s *sidecar) watch(image *dockerspec.DockerOCIImageConfig) {
	// While it starts, no check counts against it.
	check := &container.HealthConfig{Interval: checkEvery, StartPeriod: s.within}
	switch imageHas := image.Healthcheck != nil && len(image.Healthcheck.Test) > 0 && image.Healthcheck.Test[0] != "NONE"; {
	case s.Ready.Run != "":
		check.Test = []string{"CMD-SHELL", s.Ready.Run}
	case s.Ready.Port != 0:
		check = &container.HealthConfig{Test: []string{"NONE"}}
		s.ports = []string{strconv.Itoa(int(s.Ready.Port))}
	case !imageHas:
		check = nil
		for _, port := range slices.Sorted(maps.Keys(image.ExposedPorts)) {
			if number, tcp := strings.CutSuffix(port, "/tcp"); tcp {
				s.ports = append(s.ports, number)
			}
		}
	}
	s.creation.Config.Healthcheck = check
	s.creation.forgexec = len(s.ports) > 0 // which knocks at them
}

// startSidecars returns when all are ready. Their network is there.
func (e *Engine) startSidecars(ctx context.Context, spec engine.Spec, sidecars []sidecar) error {
	var all errgroup.Group
	for _, s := range sidecars {
		all.Go(func() error {
			begin := time.Now()
			if s.id == "" {
				id, err := e.create(ctx, s.creation)
				if err != nil {
					return fmt.Errorf("service %s: %w", s.Name, err)
				}
				s.id = id
			}
			// One that runs, or has ended, stays as it is.
			if inspected, err := e.inspect(ctx, s); err != nil {
				return err
			} else if inspected.State.Status == container.StateCreated {
				if _, err := e.client.ContainerStart(ctx, s.id, client.ContainerStartOptions{}); err != nil {
					return fault.Newf(fault.Invalid, "service %s (%s) cannot be started: %s", s.Name, s.Image, dockerapi.Plain(err))
				}
			}
			why, err := e.awaitReady(ctx, s)
			if err != nil {
				return err
			}
			if why != "" {
				e.sayLastLines(ctx, spec, s)
				return fault.Newf(fault.Invalid, "service %s (%s) %s; its last lines are in the log", s.Name, s.Image, why)
			}
			spec.Sayf("service %s (%s) is ready after %v", s.Name, s.Image, time.Since(begin).Round(100*time.Millisecond))
			return nil
		})
	}
	return all.Wait()
}

func (e *Engine) inspect(ctx context.Context, s sidecar) (container.InspectResponse, error) {
	inspected, err := e.client.ContainerInspect(ctx, s.id, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, fmt.Errorf("inspect service %s: %w", s.Name, err)
	}
	return inspected.Container, nil
}

// awaitReady says why a sidecar will never be ready; "" when it is.
func (e *Engine) awaitReady(ctx context.Context, s sidecar) (why string, err error) {
	const first, most = 20 * time.Millisecond, 500 * time.Millisecond
	deadline := time.Now().Add(s.within)
	knocking := ""
	for pause := first; ; pause = min(2*pause, most) {
		seen, err := e.inspect(ctx, s)
		if err != nil {
			return "", err
		}
		state := seen.State
		switch {
		case state.OOMKilled:
			return fmt.Sprintf("reached its memory limit of %s before it was ready", dockerapi.Size(seen.HostConfig.Memory)), nil
		case !state.Running:
			return fmt.Sprintf("ended with exit code %d before it was ready", state.ExitCode), nil
		case state.Health != nil && state.Health.Status == container.Healthy:
			return "", nil
		case state.Health != nil && state.Health.Status == container.Unhealthy:
			return "is not healthy", nil
		case state.Health == nil && len(s.ports) == 0:
			return "", nil
		case state.Health == nil && knocking == "":
			if knocking, err = e.knock(ctx, s, seen.NetworkSettings.Networks); err != nil {
				return "", err
			}
		case state.Health == nil:
			knocked, err := e.client.ExecInspect(ctx, knocking, client.ExecInspectOptions{})
			if err != nil {
				return "", fmt.Errorf("knock at service %s: %w", s.Name, err)
			}
			if !knocked.Running && knocked.ExitCode == 0 {
				return "", nil
			}
		}
		if time.Now().After(deadline) {
			if state.Health != nil {
				return fmt.Sprintf("was not healthy within %v", s.within), nil
			}
			return fmt.Sprintf("did not listen at port %s within %v", strings.Join(s.ports, " or "), s.within), nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return "", ctx.Err()
		case <-wait.C:
		}
	}
}

// knock has forgexec wait inside the sidecar until one of its ports answers at the
// address that the build will use. From here it may be out of reach.
func (e *Engine) knock(ctx context.Context, s sidecar, networks map[string]*network.EndpointSettings) (exec string, err error) {
	var address netip.Addr
	for _, endpoint := range networks {
		address = endpoint.IPAddress
	}
	command := append([]string{dockerapi.Home + "/" + programName}, e.forgexec.args...)
	for _, port := range s.ports {
		command = append(command, "--await", net.JoinHostPort(address.String(), port))
	}
	made, err := e.client.ExecCreate(ctx, s.id, client.ExecCreateOptions{Cmd: command})
	if err == nil {
		_, err = e.client.ExecStart(ctx, made.ID, client.ExecStartOptions{Detach: true})
	}
	if err != nil {
		// It may just have ended, which the next look at it will show.
		if seen, failed := e.inspect(ctx, s); failed == nil && !seen.State.Running {
			return "", nil
		}
		return "", fmt.Errorf("knock at service %s: %w", s.Name, err)
	}
	return made.ID, nil
}

// sayLastLines puts what a sidecar printed last into the build's log.
func (e *Engine) sayLastLines(ctx context.Context, spec engine.Spec, s sidecar) {
	text, err := e.lastOutput(ctx, s.id, lastLines)
	if err != nil {
		e.config.Log.WarnContext(ctx, "the log of a service breaks off", "attempt", spec.Attempt, "service", s.Name, "error", err)
	}
	for line := range strings.Lines(text) {
		spec.Sayf("%s | %s", s.Name, strings.TrimRight(line, "\r\n"))
	}
}

// lastOutput is what a container printed last, as far as it could be read.
func (e *Engine) lastOutput(ctx context.Context, container, lines string) (string, error) {
	logs, err := e.client.ContainerLogs(ctx, container, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: lines})
	if err != nil {
		return "", fmt.Errorf("log of container %s: %w", container, err)
	}
	defer logs.Close() //nolint:errcheck // it was not written to
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, logs); err != nil {
		return text.String(), fmt.Errorf("log of container %s: %w", container, err)
	}
	return text.String(), nil
}

// Tail is what forgexec wrote last.
func (e *Engine) Tail(ctx context.Context, attempt string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, engine.TailWithin)
	defer cancel()
	text, err := e.lastOutput(ctx, dockerapi.Name(attempt), strconv.Itoa(engine.TailLines))
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return engine.LastLines(text), err
}
