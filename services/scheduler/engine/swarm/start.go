package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	// unpulledLabel is on services: the machines that could not pull the image, one
	// after the other. unpulledMost of them are enough.
	unpulledLabel = "forge.unpulled"
	unpulledMost  = 3
	mostRetry     = time.Minute
)

// unit is one service of an attempt, with what judges its tasks.
type unit struct {
	spec        engine.Spec
	name        string // of the service
	sidecar     *engine.Sidecar
	imageName   string
	platform    string   // that is asked for; "" is any that the image is for
	constraints []string // people's
	image       *image   // nil: its registry was not asked yet
	waiting     *engine.Waiting
	// avoided are machines on which forgexec, though installed, did not start.
	avoided  []string
	retries  int
	failed   string    // why it was last tried again
	starting time.Time // since when a sidecar's health is waited for
}

// Start returns when forgexec runs, or has run. Until then it waits, and says what
// for.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) error {
	if err := check(spec); err != nil {
		return err
	}
	if err := e.ensureInstaller(ctx); err != nil {
		return err
	}
	u := &unit{
		spec: spec, name: dockerapi.Name(spec.Attempt), imageName: spec.Image, platform: spec.Platform, constraints: e.constraints(spec), waiting: engine.NewWaiting(spec, nil),
	}
	err := e.start(ctx, u)
	if _, said := errors.AsType[*engine.WaitError](err); err != nil && ctx.Err() != nil && !said {
		return u.waiting.Err(ctx.Err())
	}
	return err
}

func (e *Engine) start(ctx context.Context, u *unit) error {
	job, err := e.find(ctx, u.name)
	if err != nil {
		return err
	}
	if job == nil {
		if job, err = e.makeJob(ctx, u); err != nil {
			return err
		}
		e.config.Log.InfoContext(ctx, "made", "attempt", u.spec.Attempt, "build", u.spec.BuildID, "image", u.spec.Image, "service", job.ID)
	}
	return e.await(ctx, u, job.ID)
}

func check(spec engine.Spec) error {
	if err := dockerapi.Check(spec); err != nil {
		return err
	}
	if strings.HasPrefix(spec.Runner.URL, "unix://") {
		return fault.Newf(fault.Invalid, "attempt %s: other machines do not reach %s: FORGE_RUNNER_ADDRESS must be host:port", spec.Attempt, spec.Runner.URL)
	}
	if spec.Privileged || slices.ContainsFunc(spec.Sidecars, func(s engine.Sidecar) bool { return s.Privileged }) {
		return fault.New(fault.Invalid, "it asks for privileged containers, which a swarm does not run")
	}
	return nil
}

// makeJob makes all of an attempt, its job last.
func (e *Engine) makeJob(ctx context.Context, u *unit) (*swarm.Service, error) {
	resolved, err := e.resolve(ctx, u.spec, u.imageName, u.platform)
	if err != nil {
		return nil, err
	}
	u.image = &resolved
	networkID, err := e.network(ctx, u.spec)
	if err != nil {
		return nil, err
	}
	if err := e.startSidecars(ctx, u, networkID); err != nil {
		return nil, err
	}
	lacking, err := e.awaitInstaller(ctx, u.waiting)
	if err != nil {
		return nil, err
	}
	spec, err := e.job(u.spec, resolved, networkID, without(u.constraints, lacking))
	if err != nil {
		return nil, err
	}
	return e.create(ctx, spec, resolved.login.Auth)
}

// awaitInstaller returns when a machine has forgexec, with those that lack it.
func (e *Engine) awaitInstaller(ctx context.Context, w *engine.Waiting) (lacking []string, err error) {
	for {
		nodes, err := e.nodes(ctx)
		if err != nil {
			return nil, err
		}
		lacking, have, why, err := e.lacking(ctx, nodes)
		if err != nil || have > 0 {
			return lacking, err
		}
		if why != "" {
			why = ": " + why
		}
		w.For(fmt.Sprintf("no machine has forgexec yet, which service %s brings there%s", e.installer.name(), why))
		if err := wait(ctx, mostPause); err != nil {
			return nil, w.Err(err)
		}
	}
}

// startSidecars returns when all are ready.
func (e *Engine) startSidecars(ctx context.Context, u *unit, networkID string) error {
	var all errgroup.Group
	for i, s := range u.spec.Sidecars {
		all.Go(func() error {
			begin := time.Now()
			if err := e.startSidecar(ctx, u, i, networkID); err != nil {
				return fmt.Errorf("service %s: %w", s.Name, err)
			}
			u.spec.Sayf("service %s (%s) is ready after %v", s.Name, s.Image, time.Since(begin).Round(100*time.Millisecond))
			return nil
		})
	}
	return all.Wait()
}

// await returns when the unit's task runs, and nil, too, where it is a build's own
// that has run.
func (e *Engine) await(ctx context.Context, u *unit, id string) error {
	begin := time.Now()
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		found, err := e.client.TaskList(ctx, client.TaskListOptions{Filters: client.Filters{}.Add("service", id)})
		if err != nil {
			return fmt.Errorf("list the tasks of %s: %w", u.name, err)
		}
		nodes, err := e.nodes(ctx)
		if err != nil {
			return err
		}
		task, there := pick(found.Items, nodes)
		v := verdict{}
		if there {
			if v, err = e.judge(ctx, u, task, nodes); err != nil {
				return err
			}
		}
		switch {
		case v.started:
			return nil
		case v.retry:
			if err := e.retry(ctx, u, id, task, v); err != nil {
				return err
			}
			pause = firstPause
			continue
		case v.reason != "" && task.NodeID != "" && u.failed != "":
			u.waiting.For(u.failed, v.machine) // what the machine does now, it did before
		case v.reason != "":
			u.waiting.For(v.reason, v.machine)
		}
		if err := e.unready(ctx, u, task); err != nil {
			return err
		}
		if v.reconsider && time.Since(begin) > reconsiderAfter {
			if err := e.reconsider(ctx, u, id, nodes); err != nil {
				return err
			}
		}
		if err := wait(ctx, pause); err != nil {
			return u.waiting.Err(err)
		}
	}
}

// retry has the unit's task, which has not run, made once more, elsewhere where
// that is of use.
func (e *Engine) retry(ctx context.Context, u *unit, id string, task swarm.Task, v verdict) error {
	u.failed = v.reason
	u.waiting.For(v.reason, v.machine)
	nodes, err := e.nodes(ctx)
	if err != nil {
		return err
	}
	found, err := e.client.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect service %s: %w", u.name, err)
	}
	service := found.Service
	if stopping(&service) {
		return fmt.Errorf("attempt %s is being stopped", u.spec.Attempt)
	}
	service.Spec.Labels = maps.Clone(service.Spec.Labels)
	unpulled := strings.Fields(service.Spec.Labels[unpulledLabel])
	if v.unpulled {
		unpulled = append(unpulled, task.NodeID)
		service.Spec.Labels[unpulledLabel] = strings.Join(unpulled, " ")
		if len(unpulled) >= unpulledMost {
			return fault.Newf(fault.Invalid, "image %s could not be pulled by %s, though its registry has it: %s",
				u.imageName, strings.Join(e.machines(unpulled), ", "), oneLine(task.Status.Err))
		}
	}
	if v.unstarted {
		u.avoided = append(u.avoided, task.NodeID)
	}
	lacking, _, _, err := e.lacking(ctx, nodes)
	if err != nil {
		return err
	}
	avoid := slices.Concat(unpulled, u.avoided)
	elsewhere := v.unpulled || v.unstarted
	if !slices.ContainsFunc(slices.Collect(maps.Values(nodes)), func(n swarm.Node) bool {
		return takesTasks(n) && !slices.Contains(avoid, n.ID) && !slices.Contains(lacking, n.ID)
	}) { // there is none to go to
		avoid, u.avoided, elsewhere = nil, nil, false
	}
	if !elsewhere {
		if err := wait(ctx, min(e.config.RetryAfter<<min(u.retries, 6), mostRetry)); err != nil {
			return u.waiting.Err(err)
		}
		u.retries++
	}
	if u.sidecar != nil { // which needs no forgexec
		lacking = nil
	}
	return e.update(ctx, u, service, slices.Concat(lacking, avoid))
}

// update has the swarm make a new task in place of one that has not run, not on the
// machines left out. Where somebody else has changed the service meanwhile, that
// counts.
func (e *Engine) update(ctx context.Context, u *unit, service swarm.Service, leftOut []string) error {
	resolved, err := e.resolve(ctx, u.spec, u.imageName, u.platform)
	if err != nil {
		return err
	}
	u.image = &resolved
	spec := service.Spec
	spec.TaskTemplate.ForceUpdate++
	spec.TaskTemplate.ContainerSpec.Image = resolved.pinned
	spec.TaskTemplate.Placement = &swarm.Placement{Constraints: without(u.constraints, leftOut), Platforms: resolved.platforms}
	_, err = e.client.ServiceUpdate(ctx, service.ID, client.ServiceUpdateOptions{Version: service.Version, Spec: spec, EncodedRegistryAuth: resolved.login.Auth})
	if err != nil && !outOfSequence(err) {
		return fmt.Errorf("update service %s: %w", u.name, err)
	}
	return nil
}

// reconsiderAfter is how long a task is pending before it is looked whether machines
// that were left out have forgexec by now.
const reconsiderAfter = 10 * time.Second

// reconsider has a pending task placed on machines that were left out for want of
// forgexec and have it by now. Should it be placed in this very moment it is ended
// and made anew, which the runner's token keeps from running anything twice.
func (e *Engine) reconsider(ctx context.Context, u *unit, id string, nodes map[string]swarm.Node) error {
	lacking, _, _, err := e.lacking(ctx, nodes)
	if err != nil {
		return err
	}
	found, err := e.client.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect service %s: %w", u.name, err)
	}
	placement := found.Service.Spec.TaskTemplate.Placement
	if stopping(&found.Service) || placement == nil {
		return nil
	}
	leftOut := slices.Concat(lacking, u.avoided, strings.Fields(found.Service.Spec.Labels[unpulledLabel]))
	if len(without(u.constraints, leftOut)) >= len(placement.Constraints) {
		return nil
	}
	return e.update(ctx, u, found.Service, leftOut)
}

// without are people's constraints, and that it is on none of these machines.
func without(constraints, machines []string) []string {
	all := slices.Clone(constraints)
	for _, id := range slices.Compact(slices.Sorted(slices.Values(machines))) {
		all = append(all, "node.id!="+id)
	}
	return all
}

func (m *managers) machines(ids []string) []string {
	var names []string
	for _, id := range ids {
		if name := m.machine(id); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
