package docker

import (
	"context"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// aloneFor is how long a network may have no container: longer than that takes to be made.
const aloneFor = time.Minute

// occasion is when what waits is looked after.
type occasion int

const (
	nowAndThen occasion = iota
	// atTheBegin all goes that another Forge has left behind, where there is no other.
	atTheBegin
	// atTheEnd all goes that this process keeps ready.
	atTheEnd
)

// standing is what waits on the Docker engine for builds of this instance, and what it
// has kept of that since a build took it.
type standing struct {
	containers []container.Summary
	networks   []network.Summary
}

func (w *waiting) standing(ctx context.Context) (there standing, err error) {
	mine := client.Filters{}.Add("label", dockerapi.InstanceLabel+"="+w.config.Instance, dockerapi.WaitingLabel)
	containers, err := w.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		return there, err
	}
	networks, err := w.client.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	return standing{containers.Items, networks.Items}, err
}

// usable reports by name what runs, waits and has its network.
func (s standing) usable() map[string]bool {
	usable := map[string]bool{}
	for _, c := range s.containers {
		name := c.Labels[dockerapi.WaitingLabel]
		usable[name] = c.State == container.StateRunning && attemptOf(c) == "" &&
			slices.ContainsFunc(s.networks, func(n network.Summary) bool { return n.Name == name })
	}
	return usable
}

// tidy removes what waits and cannot be used: what has ended or lost its network, what
// is old, and what is left behind. What replicas keep ready is theirs until it is old.
// It reports whether all was looked after and nothing is left to be removed.
func (w *waiting) tidy(ctx context.Context, when occasion) bool {
	ctx, cancel := context.WithTimeout(ctx, makeWithin)
	defer cancel()
	there, err := w.standing(ctx)
	if err != nil {
		w.config.Log.InfoContext(ctx, "the containers that wait are not looked after; tried again", "error", err)
		return false
	}
	now := time.Now()
	gone, ours := w.sort(there, now)
	stale := func(labels map[string]string, created time.Time) bool {
		return when == atTheBegin && w.config.Alone || when == atTheEnd && labels[dockerapi.ProcessLabel] == w.process ||
			now.Sub(created) > waitsAtMost+w.config.TidyEvery
	}
	used := map[string]bool{}
	for _, c := range there.containers {
		name := c.Labels[dockerapi.WaitingLabel]
		used[name] = true
		if attemptOf(c) == "" && !ours[name] && stale(c.Labels, time.Unix(c.Created, 0)) {
			gone = append(gone, waiter{name: name}) // which it has until a build takes it
		}
	}
	for _, n := range there.networks {
		name := n.Labels[dockerapi.WaitingLabel]
		if !used[name] && !ours[name] && (stale(n.Labels, n.Created) || now.Sub(n.Created) > aloneFor) {
			gone = append(gone, waiter{name: name})
		}
	}
	for _, one := range gone {
		w.clear(ctx, one)
	}
	if len(gone) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.left) == 0
}

// sort takes what cannot be used out of what is ready, and names that and all that is
// still to be removed. ours are the names that this process knows besides.
func (w *waiting) sort(there standing, now time.Time) (gone []waiter, ours map[string]bool) {
	usable := there.usable()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds = slices.DeleteFunc(w.kinds, func(k kind) bool { return now.Sub(k.used) > missedFor })
	wanted := func(key string) bool { return slices.ContainsFunc(w.kinds, func(k kind) bool { return k.key == key }) }
	ours = map[string]bool{w.making: true}
	w.ready = slices.DeleteFunc(w.ready, func(one waiter) bool {
		ours[one.name] = true
		bad := !usable[one.name] && one.made.Before(now.Add(-quiet)) || now.Sub(one.made) > waitsAtMost || !wanted(one.key)
		if bad {
			gone = append(gone, one)
		}
		return bad
	})
	for most := w.most(); len(w.ready) > max(most, 0); w.ready = w.ready[1:] { // the memory is needed
		gone = append(gone, w.ready[0])
	}
	for _, c := range there.containers {
		if attemptOf(c) != "" { // a build's after all
			delete(w.left, c.Labels[dockerapi.WaitingLabel])
		}
	}
	for name, of := range w.left {
		ours[name] = true
		gone = append(gone, of.waiter)
	}
	return gone, ours
}
