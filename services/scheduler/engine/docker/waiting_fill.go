package docker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// fill makes ready what is missing: one of each kind, then more of the newest.
func (w *waiting) fill(ctx context.Context) {
	for {
		missing, instead, ok := w.missing(w.most())
		if !ok {
			return
		}
		for _, one := range instead {
			w.clear(ctx, one)
		}
		if err := w.prepare(ctx, missing); err != nil {
			if ctx.Err() == nil {
				w.config.Log.InfoContext(ctx, "no container is kept ready", "image", missing.like.Config.Image, "error", err)
			}
			w.forget(missing.key)
		}
		w.mu.Lock()
		busy := time.Since(w.asked) < quiet
		w.mu.Unlock()
		if busy { // whoever asked has woken us
			return
		}
	}
}

// missing is the kind of which one more is to be made, and what goes for that.
func (w *waiting) missing(most int) (k kind, instead []waiter, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := map[string]int{}
	for _, one := range w.ready {
		there[one.key]++
	}
	n := slices.IndexFunc(w.kinds, func(k kind) bool { return there[k.key] == 0 })
	switch {
	case most <= 0, len(w.kinds) == 0, n < 0 && len(w.ready) >= most:
		return kind{}, nil, false
	case n < 0:
		return w.kinds[0], nil, true
	case len(w.ready) < most:
		return w.kinds[n], nil, true
	}
	// What nobody asks for any more goes first, then what there are several of, then
	// what was asked for longer ago.
	rank := func(one waiter) int {
		at := slices.IndexFunc(w.kinds, func(k kind) bool { return k.key == one.key })
		switch {
		case at < 0:
			return -2
		case there[one.key] > 1:
			return -1
		}
		return len(w.kinds) - at
	}
	victim := slices.MinFunc(w.ready, func(a, b waiter) int { return cmp.Compare(rank(a), rank(b)) })
	if rank(victim) > len(w.kinds)-n {
		return kind{}, nil, false
	}
	w.ready = slices.DeleteFunc(w.ready, func(one waiter) bool { return one == victim })
	return w.kinds[n], []waiter{victim}, true
}

func (w *waiting) forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds = slices.DeleteFunc(w.kinds, func(k kind) bool { return k.key == key })
}

// Prepare has one more container wait for a build like that of spec, whose attempt and
// token do not matter. Those for which nothing waits are an error.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	like, err := e.container(ctx, spec)
	if err != nil {
		return err
	}
	key := e.waiting.kindOf(spec, like)
	if key == "" {
		return errors.New("no container waits for what has services, ports, folders of the host or a platform")
	}
	return e.waiting.prepare(ctx, kind{key: key, like: like})
}

// prepare makes a container that waits, and its network.
func (w *waiting) prepare(ctx context.Context, k kind) error {
	// It is not cut short: the Docker engine would go on with it, and nobody know.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeWithin)
	defer cancel()
	one := waiter{key: k.key, name: waitingPrefix + strings.ToLower(rand.Text()), made: time.Now()}
	w.mu.Lock()
	w.making = one.name
	w.mu.Unlock()
	late := lateNetwork
	err := w.makeNetwork(ctx, one.name, w.labels(one.name))
	if err == nil {
		late = lateContainer
		one.id, err = w.create(ctx, k.like.waits(one.name, w.labels(one.name)))
	}
	if err == nil {
		late = nothingLate
		_, err = w.client.ContainerStart(ctx, one.id, client.ContainerStartOptions{})
	}
	w.mu.Lock()
	w.making = ""
	if err == nil {
		w.ready = append(w.ready, one)
	}
	w.mu.Unlock()
	if err == nil {
		return nil
	}
	if answered(err) {
		late = nothingLate
	}
	clean, done := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer done()
	return errors.Join(err, w.drop(clean, one, late))
}

func (w *waiting) labels(name string) map[string]string {
	return map[string]string{dockerapi.InstanceLabel: w.config.Instance, dockerapi.WaitingLabel: name, dockerapi.ProcessLabel: w.process}
}

// waits is the same container without an attempt: of the very image that was found.
func (c creation) waits(name string, labels map[string]string) creation {
	config, host := *c.Config, *c.HostConfig
	config.Labels, config.OpenStdin, config.Image = labels, true, c.image
	config.Env = append(withoutToken(config.Env), engine.TokenEnv+"=", engine.WaitsEnv+"=1")
	host.NetworkMode = container.NetworkMode(name)
	c.Name, c.Config, c.HostConfig = name, &config, &host
	return c
}
