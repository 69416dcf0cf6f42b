package attempt

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/dustin/go-humanize"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// spec is what the engine is asked for.
func (s *Service) spec(ctx context.Context, c Start) engine.Spec {
	b := c.Build
	ctx = context.WithoutCancel(ctx) // a line that was said is stored
	spec := engine.Spec{
		Attempt: store.AttemptName(b.GetId(), b.GetAttempt()), BuildID: b.GetId(),
		Repository: wording.FullName(b.GetRepository()),
		Action:     trigger.ActionName(b.GetAction(), b.GetEnvironment()), Image: b.GetImage(), Platform: b.ConfigJob().GetPlatform(), Fork: b.GetFork(),
		Sidecars: sidecars(b.ConfigJob()), Registries: s.registries.For(b),
		Runner: engine.Runner{URL: s.Runners.URL, CA: s.Runners.CA, Token: c.Token},
		CPUs:   Bound(b.ConfigJob().GetResources().GetCpus(), s.Limits.CPUs, s.Limits.MaxCPUs),
		Memory: s.memory(b), SharedMemory: b.ConfigJob().GetResources().GetShm(),
		Say: func(line string) { s.say(ctx, b, line) },
	}
	if note := b.GetScheduleNote(); note != "" {
		spec.Sayf("schedule %s: %s", b.GetSchedule(), note)
	}
	s.privilege(b, &spec)
	for _, port := range b.ConfigJob().GetPorts() {
		if s.Limits.PortAllowed == nil || !s.Limits.PortAllowed(port.GetHost()) {
			spec.Sayf("port %d is not published: this server does not let builds have its port %d (FORGE_BUILD_PORTS)", port.GetContainer(), port.GetHost())
			continue
		}
		spec.Ports = append(spec.Ports, engine.Port{Container: uint16(port.GetContainer()), Host: uint16(port.GetHost())}) //nolint:gosec // config bounds both
	}
	return spec
}

// sidecars are in the order of their names, so that they are the same each time.
func sidecars(job *configv1.Job) []engine.Sidecar {
	var all []engine.Sidecar
	for _, name := range slices.Sorted(maps.Keys(job.GetServices())) {
		service := job.GetServices()[name]
		ready := service.GetReady()
		all = append(all, engine.Sidecar{
			Name: name, Image: service.GetImage(), Environment: service.GetEnvironment(), Privileged: service.GetPrivileged(),
			Command: service.GetCommand(), Entrypoint: service.GetEntrypoint(),
			Ready: engine.Ready{Run: ready.GetRun(), Port: uint16(ready.GetPort()), Within: ready.GetWithin().AsDuration()}, //nolint:gosec // config bounds it
		})
	}
	return all
}

func (s *Service) memory(b *store.Build) int64 {
	return Bound(b.ConfigJob().GetResources().GetMemory(), s.Limits.Memory, s.Limits.MaxMemory)
}

// outOfMemory says so, with the limit.
func (s *Service) outOfMemory(b *store.Build) string {
	if limit := s.memory(b); limit > 0 {
		return fmt.Sprintf("the memory limit of %s was reached", humanize.IBytes(uint64(limit)))
	}
	return "there was no memory left"
}

// outOfDisk says so, with the limit.
func (s *Service) outOfDisk(*store.Build) string {
	if s.Limits.Disk != "" {
		return "used more disk than its limit of " + s.Limits.Disk
	}
	return "used more disk than its limit"
}

// Bound is what a build gets of a resource: what it asks for, else the usual, no
// more than the most; 0 is no bound.
func Bound[N int64 | float64](asked, usual, most N) N {
	got := cmp.Or(asked, usual)
	if most > 0 && (got == 0 || got > most) {
		return most
	}
	return got
}

// say puts a line of ours at the end of the log of the build's attempt, unless
// that has ended. The log serves people: what cannot be stored is not worth a build.
func (s *Service) say(ctx context.Context, b *store.Build, line string) {
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		a, err := t.Attempt(ctx, b.GetId(), b.GetAttempt())
		if err != nil || a.Ended {
			return err
		}
		begin := a.LogSize
		text := []byte("forge: " + line + "\n")
		a.LogSize += int64(len(text))
		if err := s.logs.Append(ctx, t, a, begin, text, logs.Notes{Times: []logs.Stamp{{Position: begin, Time: t.Now}}}); err != nil {
			return err
		}
		return t.SaveAttempt(ctx, a)
	})
	if err != nil {
		s.log.WarnContext(ctx, "line of a log not stored", "build", b.GetId(), "line", line, "error", err)
	}
}
