package swarm

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// verdict is what a task means for a Start.
type verdict struct {
	started bool
	// retry: it has not run, and what keeps it may pass. It was its machine's pull of
	// the image, or its machine's forgexec.
	retry, unpulled, unstarted bool
	// reconsider: it is pending, and machines may have been left out.
	reconsider bool
	// reason is what it waits for, for people; machine is the name in there.
	reason, machine string
}

// judge says what a task means. Its error is fault.Invalid where the attempt can
// never be started.
func (e *Engine) judge(ctx context.Context, u *unit, task swarm.Task, nodes map[string]swarm.Node) (verdict, error) {
	machine := e.machine(task.NodeID)
	switch state := task.Status.State; {
	case state == swarm.TaskStateRunning && heardOf(nodes[task.NodeID]):
		return verdict{started: true}, nil
	case state == swarm.TaskStateRunning:
		return verdict{machine: machine, reason: fmt.Sprintf("machine %s, where it was started, is not heard of", machine)}, nil
	case !ended(task) && task.NodeID == "":
		return e.pending(u, task, nodes)
	case !ended(task):
		return verdict{machine: machine, reason: underWay(task, u.imageName, machine)}, nil
	case ran(task):
		return verdict{started: true}, e.sidecarEnded(ctx, u, task)
	case strings.Contains(task.Status.Err, noSuchImage):
		return e.notPulled(ctx, u, machine)
	case strings.Contains(task.Status.Err, startFailed) && u.sidecar == nil && strings.Contains(task.Status.Err, e.installer.programPath()):
		return verdict{retry: true, unstarted: true, machine: machine, reason: "machine " + machine + " cannot run forgexec yet"}, nil
	case task.Status.State == swarm.TaskStateOrphaned, strings.Contains(task.Status.Err, notMetAnymore), task.Status.Err == "":
		return verdict{retry: true, machine: machine, reason: "machine " + machine + " was taken away"}, nil
	}
	return verdict{}, neverStarts(u, task, machine)
}

// neverStarts is for what Docker's agent says of a container that another machine
// would say, too.
func neverStarts(u *unit, task swarm.Task, machine string) error {
	said := oneLine(strings.TrimPrefix(task.Status.Err, startFailed+": "))
	switch {
	case strings.Contains(said, "port is already allocated"), strings.Contains(said, "address already in use"):
		return fault.Newf(fault.Invalid, "a port of machine %s is taken: %s", machine, said)
	case strings.HasPrefix(said, "unable to find user"), strings.HasPrefix(said, "unable to find group"):
		return fault.Newf(fault.Invalid, "image %s does not know whom its commands are to run as: %s", u.imageName, said)
	}
	return fault.Newf(fault.Invalid, "the container cannot be started: %s", said)
}

// notPulled is for an image that a machine has not and could not pull. The registry
// is asked whether that is for good.
func (e *Engine) notPulled(ctx context.Context, u *unit, machine string) (verdict, error) {
	if u.image == nil {
		resolved, err := e.resolve(ctx, u.spec, u.imageName, u.platform)
		if err != nil {
			return verdict{}, err
		}
		u.image = &resolved
	}
	switch {
	case u.image.unsaid == nil:
		return verdict{retry: true, unpulled: true, machine: machine, reason: fmt.Sprintf("%s could not pull %s", machine, u.imageName)}, nil
	case u.image.refusal(u.spec) != nil:
		return verdict{}, u.image.refusal(u.spec)
	}
	return verdict{retry: true, reason: fmt.Sprintf("image %s is not pulled yet: %s does not answer as a registry should: %s",
		u.imageName, u.image.host, oneLine(dockerapi.Plain(u.image.unsaid)))}, nil
}

// underWay says what a machine does with a task.
func underWay(task swarm.Task, image, machine string) string {
	switch task.Status.State {
	case swarm.TaskStateAssigned, swarm.TaskStateAccepted:
		return fmt.Sprintf("machine %s has not begun with it", machine)
	case swarm.TaskStatePreparing:
		return fmt.Sprintf("machine %s pulls image %s", machine, image)
	default:
	}
	return fmt.Sprintf("machine %s starts it", machine)
}

// pending is for a task that has no machine yet.
func (e *Engine) pending(u *unit, task swarm.Task, nodes map[string]swarm.Node) (verdict, error) {
	if !strings.Contains(task.Status.Err, noSuitableNode) {
		return verdict{reason: "the swarm has not placed it yet (" + string(task.Status.State) + ")"}, nil
	}
	if len(u.constraints) == 0 { // else machines may come that a constraint asks for
		if never := tooLarge(task, nodes); never != "" {
			return verdict{}, fault.New(fault.Invalid, never)
		}
		if never := foreign(u, task, nodes); never != "" {
			return verdict{}, fault.New(fault.Invalid, never)
		}
	}
	return verdict{reason: unplaced(task, u.constraints, nodes), reconsider: u.sidecar == nil}, nil
}

// tooLarge says what a task reserves that no machine has, however idle; "" if one
// has it.
func tooLarge(task swarm.Task, nodes map[string]swarm.Node) string {
	var cpus, memory int64
	for _, node := range nodes {
		cpus, memory = max(cpus, node.Description.Resources.NanoCPUs), max(memory, node.Description.Resources.MemoryBytes)
	}
	switch asked := reserved(task); {
	case asked.MemoryBytes > memory:
		return fmt.Sprintf("it asks for %s; the largest machine has %s", size(asked.MemoryBytes), size(memory))
	case asked.NanoCPUs > cpus:
		return fmt.Sprintf("it asks for %s; the largest machine has %s", cores(asked.NanoCPUs), cores(cpus))
	}
	return ""
}

// foreign says which platforms an image is for, or which is asked for, where no
// machine has one of them.
func foreign(u *unit, task swarm.Task, nodes map[string]swarm.Node) string {
	if task.Spec.Placement == nil || len(task.Spec.Placement.Platforms) == 0 {
		return ""
	}
	var has, want []string
	for _, p := range task.Spec.Placement.Platforms {
		if p.Architecture == "" {
			return ""
		}
		want = append(want, platform(p))
	}
	for _, node := range nodes {
		has = append(has, platform(node.Description.Platform))
	}
	slices.Sort(has)
	has = slices.Compact(has)
	if slices.ContainsFunc(has, func(p string) bool { return slices.Contains(want, p) }) {
		return ""
	}
	if u.platform != "" {
		return fmt.Sprintf("it asks for platform %s; the machines of the swarm are %s", u.platform, strings.Join(has, ", "))
	}
	return fmt.Sprintf("image %s is for %s; the machines of the swarm are %s", u.imageName, strings.Join(want, ", "), strings.Join(has, ", "))
}

// unplaced says why no machine takes a task now, in words that do not name each.
func unplaced(task swarm.Task, constraints []string, nodes map[string]swarm.Node) string {
	said := task.Status.Err
	var away []string
	notReady := 0
	for _, node := range nodes {
		if !takesTasks(node) {
			notReady++
		}
	}
	if notReady > 0 {
		away = append(away, fmt.Sprintf("%d not ready", notReady))
	}
	var what string
	switch {
	case strings.Contains(said, "insufficient resources"):
		asked := reserved(task)
		what = fmt.Sprintf("no machine has %s and %s free", cores(asked.NanoCPUs), size(asked.MemoryBytes))
	case strings.Contains(said, "host-mode port"):
		what = "its ports are taken on each machine that could run it"
	case strings.Contains(said, "unsupported platform"):
		what = "no machine has a platform of its image"
	case strings.Contains(said, "constraints not satisfied") && len(constraints) > 0:
		what = "no machine that has forgexec meets " + strings.Join(constraints, " and ")
	case strings.Contains(said, "constraints not satisfied"):
		what = "no machine has forgexec yet"
	case notReady == len(nodes):
		what = "no machine is ready"
	default:
		return oneLine(said)
	}
	if strings.Contains(said, "insufficient resources") {
		away = append(away, leftOut(said, "constraints not satisfied on ", "left out by constraints")...)
		away = append(away, leftOut(said, "unsupported platform on ", "of another platform")...)
	}
	slices.Sort(away)
	return what + " (" + strings.Join(append([]string{counted(len(nodes), "machine")}, away...), ", ") + ")"
}

// leftOut is how many machines a manager names after these words, if any.
func leftOut(said, words, meaning string) []string {
	_, after, found := strings.Cut(said, words)
	count, _, _ := strings.Cut(after, " ")
	if _, err := strconv.Atoi(count); !found || err != nil {
		return nil
	}
	return []string{count + " " + meaning}
}

func reserved(task swarm.Task) swarm.Resources {
	if task.Spec.Resources == nil || task.Spec.Resources.Reservations == nil {
		return swarm.Resources{}
	}
	return *task.Spec.Resources.Reservations
}

func cores(nano int64) string {
	number := strconv.FormatFloat(float64(nano)/1e9, 'f', -1, 64)
	if number == "1" {
		return "1 CPU"
	}
	return number + " CPUs"
}

// size is a number of bytes as .forge.yml has it.
func size(bytes int64) string {
	return strings.NewReplacer(".0 ", "", " ", "").Replace(dockerapi.Size(bytes))
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
