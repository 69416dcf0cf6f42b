package swarm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// taskWithin is how long a job may be without a task before it is taken for one
// that has lost it.
const taskWithin = time.Minute

// forgexec adds exitHeld to its exit codes, of which there are so many, where it is
// held.
const (
	exitHeld  = 64
	exitCodes = 16
)

// List asks a manager. An attempt that has come no further than its network or its
// sidecars is listed too, so that these are found when nobody goes on with it.
func (e *Engine) List(ctx context.Context) ([]engine.Container, error) {
	if err := e.ensureInstaller(ctx); err != nil {
		e.config.Log.WarnContext(ctx, "forgexec is not brought to the machines", "error", err)
	}
	// Tasks come before their services: one whose service is not there was not made
	// meanwhile.
	tasks, err := e.tasks(ctx, dockerapi.InstanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	services, err := e.services(ctx, dockerapi.InstanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	networks, err := e.networks(ctx, dockerapi.InstanceLabel, e.config.Instance)
	if err != nil {
		return nil, err
	}
	nodes, err := e.nodes(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]*attempt{}
	of := func(name string) *attempt {
		if found[name] == nil {
			found[name] = &attempt{name: name}
		}
		return found[name]
	}
	for _, n := range networks {
		of(n.Labels[dockerapi.AttemptLabel])
	}
	for i, s := range services {
		if a := of(s.Spec.Labels[dockerapi.AttemptLabel]); s.Spec.Labels[dockerapi.SidecarLabel] == "" {
			a.job = &services[i]
		}
	}
	for _, t := range tasks {
		// Docker before 23 keeps the tasks of removed jobs that had ended by themselves.
		if ended(t) && found[attemptOf(t)] == nil {
			continue
		}
		if a := of(attemptOf(t)); sidecarOf(t) == "" {
			a.tasks = append(a.tasks, t)
		}
	}
	delete(found, "")
	listed := make([]engine.Container, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		listed = append(listed, e.seen(found[name], nodes))
	}
	e.forgetEmpty(found)
	return listed, nil
}

// attempt is what is there of one: its job and the tasks of that.
type attempt struct {
	name  string
	job   *swarm.Service // nil: it was not made, or has been removed
	tasks []swarm.Task
}

// seen is an attempt in the scheduler's words.
func (e *Engine) seen(a *attempt, nodes map[string]swarm.Node) engine.Container {
	c := engine.Container{Attempt: a.name, ExitCode: -1}
	task, there := pick(a.tasks, nodes)
	if !there {
		if a.job != nil && !stopping(a.job) {
			if c.Running = e.emptyFor(a.name) < taskWithin; !c.Running {
				c.Reason = "its task is gone"
			}
		}
		return c
	}
	c.Machine = e.machine(task.NodeID)
	node, known := nodes[task.NodeID]
	left := task.NodeID != "" && !known
	if ended(task) {
		e.sayEnding(&c, task, left)
		return c
	}
	switch {
	case left:
		c.Ending, c.Reason = engine.Withdrawn, hasLeft(c.Machine)
	case a.job == nil:
		c.Reason = "its service was removed"
	case task.NodeID != "" && !heardOf(node):
		c.Running, c.Unreachable = true, true
		c.Reason = oneLine(fmt.Sprintf("machine %s is %s: %s", c.Machine, node.Status.State, node.Status.Message))
	default:
		c.Running = true
	}
	if task.Status.State == swarm.TaskStateRunning {
		c.Start = task.Status.Timestamp
	}
	return c
}

// sayEnding says how a task ended.
func (e *Engine) sayEnding(c *engine.Container, task swarm.Task, left bool) {
	c.Reason = oneLine(task.Status.Err)
	switch {
	case task.Status.State == swarm.TaskStateOrphaned, left && !ran(task):
		c.Ending, c.Reason = engine.Withdrawn, hasLeft(c.Machine)
	case strings.Contains(task.Status.Err, notMetAnymore):
		c.Ending, c.Reason = engine.Withdrawn, fmt.Sprintf("machine %s does not meet its constraints any more", c.Machine)
	case !ran(task):
	default:
		if c.ExitCode = task.Status.ContainerStatus.ExitCode; c.ExitCode >= exitHeld && c.ExitCode < exitHeld+exitCodes {
			c.ExitCode, c.Reason = c.ExitCode-exitHeld, ""
		}
		if c.ExitCode == 137 {
			c.Reason = killed(task)
		}
	}
}

func hasLeft(machine string) string { return fmt.Sprintf("machine %s has left the swarm", machine) }

// killed is about exit code 137. Agents do not say what killed a container.
func killed(task swarm.Task) string {
	if r := task.Spec.Resources; r != nil && r.Limits != nil && r.Limits.MemoryBytes > 0 {
		return "killed (137), perhaps at its memory limit of " + size(r.Limits.MemoryBytes)
	}
	return "killed (137), perhaps for want of memory on its machine"
}

// emptyFor is how long an attempt has been known to have a job without a task, by
// our own clock.
func (e *Engine) emptyFor(attempt string) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	since, known := e.empty[attempt]
	if !known {
		since = time.Now()
		e.empty[attempt] = since
	}
	return time.Since(since)
}

// forgetEmpty drops those that have a task by now, or are gone.
func (e *Engine) forgetEmpty(found map[string]*attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.empty {
		if a := found[name]; a == nil || len(a.tasks) > 0 {
			delete(e.empty, name)
		}
	}
}
