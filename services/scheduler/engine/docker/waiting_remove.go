package docker

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// lateFor is how long what the Docker engine gave no answer about may take to come to be.
const lateFor = 10 * time.Minute

// late is what may come to be still.
type late int

const (
	nothingLate late = iota
	lateNetwork
	lateContainer
)

// leftover is what is to be removed and may be there. It is known by its name alone, which
// what a build has taken does not have any more.
type leftover struct {
	waiter
	late  late
	since time.Time
}

// answered reports whether a failed call was answered by the Docker engine: else it may go
// on with what was asked for.
func answered(err error) bool {
	return errdefs.IsInternal(err) || errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsConflict(err) ||
		errdefs.IsPermissionDenied(err) || fault.Is(err, fault.Invalid)
}

// drop removes what waits, now or later: until it is gone, tidy tries again.
func (w *waiting) drop(ctx context.Context, one waiter, awaited late) error {
	w.mu.Lock()
	of, again := w.left[one.name]
	if !again {
		of = leftover{waiter{name: one.name}, awaited, time.Now()}
		w.left[one.name] = of
	}
	w.mu.Unlock()
	hadContainer, hadNetwork, err := w.discard(ctx, one)
	came := of.late == nothingLate || of.late == lateContainer && hadContainer || of.late == lateNetwork && hadNetwork
	if err == nil && (came || time.Since(of.since) > lateFor) {
		w.mu.Lock()
		delete(w.left, one.name)
		w.mu.Unlock()
	}
	return err
}

// discard removes one, and says what there was of it.
func (w *waiting) discard(ctx context.Context, one waiter) (hadContainer, hadNetwork bool, err error) {
	_, err = w.client.ContainerRemove(ctx, cmp.Or(one.id, one.name), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if hadContainer = err == nil; err != nil && !errdefs.IsNotFound(err) {
		return false, false, err
	}
	hadNetwork, err = w.removeNetwork(ctx, one.name)
	return hadContainer, hadNetwork, err
}

func (w *waiting) clear(ctx context.Context, one waiter) {
	if err := w.drop(ctx, one, nothingLate); err != nil {
		w.config.Log.WarnContext(ctx, "a container that waits is not removed; tried again", "container", one.name, "error", err)
	}
}

// giveWay removes all that waits, for replicas too, and reports whether there was
// anything: what it takes is needed for a build.
func (w *waiting) giveWay(ctx context.Context) bool {
	w.mu.Lock()
	gone := w.ready
	w.ready, w.kinds = nil, nil
	w.mu.Unlock()
	if there, err := w.standing(ctx); err == nil {
		for _, c := range there.containers {
			if c.State == container.StateRunning && attemptOf(c) == "" && c.Labels[dockerapi.ProcessLabel] != w.process {
				gone = append(gone, waiter{name: c.Labels[dockerapi.WaitingLabel]}) // by a name that it has until a build takes it
			}
		}
	}
	for _, one := range gone {
		w.clear(ctx, one)
	}
	return len(gone) > 0
}

// removeTaken removes a container that had waited until its attempt took it, and the
// network of that. Nothing but the container says which it is: so that goes last.
func (e *Engine) removeTaken(ctx context.Context, c container.Summary) error {
	network := c.Labels[dockerapi.WaitingLabel]
	// What is connected keeps its network. Where it is not, the next call says all there is to say.
	_, _ = e.client.NetworkDisconnect(ctx, network, client.NetworkDisconnectOptions{Container: c.ID, Force: true})
	_, err := e.client.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"})
	if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) { // it runs
		return fmt.Errorf("kill container %s: %w", c.ID, err)
	}
	if _, err := e.removeNetwork(ctx, network); err != nil {
		return fmt.Errorf("remove network %s: %w", network, err)
	}
	return e.remove(ctx, c.ID, true)
}
