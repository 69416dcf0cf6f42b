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

// tidy removes what waits and cannot be used: what has ended or lost its network, what
// is old, and at first what another Forge has left behind, which makes its own anew
// where it still runs.
func (w *waiting) tidy(ctx context.Context, first bool) {
	ctx, cancel := context.WithTimeout(ctx, makeWithin)
	defer cancel()
	mine := client.Filters{}.Add("label", dockerapi.InstanceLabel+"="+w.config.Instance, dockerapi.WaitingLabel)
	containers, err := w.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		w.config.Log.InfoContext(ctx, "the containers that wait are not looked after; tried again", "error", err)
		return
	}
	networks, err := w.client.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		w.config.Log.InfoContext(ctx, "the networks of containers that wait are not looked after; tried again", "error", err)
		return
	}
	now := time.Now()
	alive, used := map[string]bool{}, map[string]bool{} // by name
	for _, c := range containers.Items {
		name := c.Labels[dockerapi.WaitingLabel]
		used[name] = true
		alive[name] = c.State == container.StateRunning && attemptOf(c) == "" &&
			slices.ContainsFunc(networks.Items, func(n network.Summary) bool { return n.Name == name })
	}
	w.mu.Lock()
	w.kinds = slices.DeleteFunc(w.kinds, func(k kind) bool { return now.Sub(k.used) > missedFor })
	wanted := func(key string) bool { return slices.ContainsFunc(w.kinds, func(k kind) bool { return k.key == key }) }
	var gone []waiter
	ours := map[string]bool{w.making: true}
	w.ready = slices.DeleteFunc(w.ready, func(one waiter) bool {
		ours[one.name] = true
		bad := !alive[one.name] && one.made.Before(now.Add(-quiet)) || now.Sub(one.made) > waitsAtMost || !wanted(one.key)
		if bad {
			gone = append(gone, one)
		}
		return bad
	})
	w.mu.Unlock()
	old := func(created time.Time) bool { return first || now.Sub(created) > waitsAtMost+tidyEvery }
	for _, c := range containers.Items {
		if name := c.Labels[dockerapi.WaitingLabel]; attemptOf(c) == "" && !ours[name] && old(time.Unix(c.Created, 0)) {
			gone = append(gone, waiter{id: c.ID, name: name})
			used[name] = true
		}
	}
	for _, one := range gone {
		w.clear(ctx, one)
	}
	for _, n := range networks.Items {
		if name := n.Labels[dockerapi.WaitingLabel]; !used[name] && !ours[name] && (first || now.Sub(n.Created) > tidyEvery) {
			w.clear(ctx, waiter{name: name})
		}
	}
	if len(gone) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
