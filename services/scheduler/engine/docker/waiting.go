package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

const (
	// waitingPrefix begins the name of a container that waits, and stays that of its
	// network. No attempt has a name like it.
	waitingPrefix = "forge_waiting_"
	// kinds is how many kinds of containers wait at most.
	kinds = 4
	// waitsAtMost is how old a container may become that waits.
	waitsAtMost = time.Hour
	// missedFor is how long after its last build a kind is still kept ready.
	missedFor = 24 * time.Hour
	// quiet is how long no build has been started before others are made ready, so that
	// those which are started have the Docker engine for themselves.
	quiet = 500 * time.Millisecond
	// makeWithin and closeWithin bound what is done in the background.
	makeWithin, closeWithin = 20 * time.Second, 10 * time.Second
	// closePause is how long what is left has to come to be, or to be removable, before
	// an engine that closes looks again.
	closePause = 100 * time.Millisecond
)

// waiting keeps containers ready: each started with forgexec in it, which waits for the
// token of an attempt on its standard input. It holds nothing of any build. A build
// for which a container of the same kind would be made takes it by a name, which says
// from then on whose it is, and by the token. None is used twice.
type waiting struct {
	*Engine
	process string // tells what this process keeps ready from what its replicas do
	room    room
	stop    func()
	ended   chan struct{}
	wake    chan struct{}

	mu     sync.Mutex
	kinds  []kind              // the one that was asked for last comes first
	ready  []waiter            // the oldest first
	left   map[string]leftover // what is still to be removed, by its name
	making string              // the name of what is being made
	asked  time.Time
}

// kind is what containers have in common that are the same but for their attempt.
type kind struct {
	key  string
	like creation
	used time.Time
}

// waiter is a container that waits.
type waiter struct {
	key, id, name string
	made          time.Time
}

// newWaiting begins to keep containers ready, until it is closed.
func newWaiting(ctx context.Context, e *Engine, free room) *waiting {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &waiting{
		Engine: e, process: strings.ToLower(rand.Text()), room: free, stop: stop,
		ended: make(chan struct{}), wake: make(chan struct{}, 1), left: map[string]leftover{},
	}
	if e.config.Waiting <= 0 {
		close(w.ended)
		return w
	}
	go func() {
		defer close(w.ended)
		w.run(ctx)
	}()
	return w
}

// close ends the keeping, and removes what waits still: as often as it takes, for what
// the Docker engine gave no answer about comes to be later, if at all.
func (w *waiting) close() {
	w.stop()
	<-w.ended
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	w.mu.Lock()
	none := w.config.Waiting <= 0 && len(w.ready) == 0 && len(w.left) == 0
	w.ready, w.kinds = nil, nil
	w.mu.Unlock()
	if none {
		return
	}
	pause := time.NewTicker(closePause)
	defer pause.Stop()
	for !w.tidy(ctx, atTheEnd) {
		select {
		case <-ctx.Done():
			w.config.Log.WarnContext(ctx, "containers that wait may be left on the Docker engine; Forge removes them when they are old", "within", closeWithin)
			return
		case <-pause.C:
		}
	}
}

// most is how many wait at most, as things are.
func (w *waiting) most() int {
	if w.config.Sparing {
		return w.room.most(w.config.Waiting)
	}
	return w.config.Waiting
}

// run makes ready what is missing once no build has been started for a moment.
func (w *waiting) run(ctx context.Context) {
	tidy := time.NewTicker(w.config.TidyEvery)
	defer tidy.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for when := atTheBegin; ; when = nowAndThen {
		w.tidy(ctx, when)
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case <-tidy.C:
				again = false
			case <-w.wake:
				pause.Reset(quiet)
			case <-pause.C:
				w.fill(ctx)
			}
		}
	}
}

// kindOf is what kind of container an attempt gets; "" for one that is made for it
// alone.
func (w *waiting) kindOf(spec engine.Spec, c creation) string {
	if len(spec.Sidecars) > 0 || len(spec.Ports) > 0 || len(spec.Volumes) > 0 || spec.Privileged || spec.Platform != "" || len(spec.Loaded) > 0 {
		return ""
	}
	config, host := *c.Config, *c.HostConfig
	config.Labels, config.Env, host.NetworkMode = nil, withoutToken(config.Env), ""
	text, err := json.Marshal([]any{config, host, c.image, c.own, c.forgexec})
	if err != nil {
		return "" // it is not kept ready then
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

func withoutToken(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		return strings.HasPrefix(line, engine.TokenEnv+"=") || strings.HasPrefix(line, engine.WaitsEnv+"=")
	})
}

// take gives a container that waits to an attempt. false: there is none of its kind.
// Whatever is asked for, more of it will be kept ready.
func (w *waiting) take(ctx context.Context, spec engine.Spec, like creation) (bool, error) {
	key := w.kindOf(spec, like)
	if key == "" {
		return false, nil
	}
	one, ok := w.claim(key, like)
	if !ok {
		return false, nil
	}
	_, err := w.client.ContainerRename(ctx, one.id, client.ContainerRenameOptions{NewName: dockerapi.Name(spec.Attempt)})
	if err == nil {
		err = w.runs(ctx, one.id) // what has ended can be given a token, too
	}
	if err != nil {
		w.config.Log.InfoContext(ctx, "a container that waited cannot be used", "attempt", spec.Attempt, "container", one.id, "error", err)
		return false, w.drop(ctx, one, nothingLate)
	}
	// Where that fails it may have the token all the same: the next Start goes on with it.
	if err := w.give(ctx, one.id, spec.Runner.Token); err != nil {
		return false, err
	}
	w.config.Log.InfoContext(ctx, "started", "attempt", spec.Attempt, "build", spec.BuildID, "image", spec.Image, "container", one.id, "waited", time.Since(one.made).Round(time.Second))
	return true, nil
}

func (w *waiting) runs(ctx context.Context, id string) error {
	found, err := w.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err == nil && !found.Container.State.Running {
		err = fmt.Errorf("it ended with exit code %d", found.Container.State.ExitCode)
	}
	return err
}

// claim takes one out of those that are ready; false: there is none.
func (w *waiting) claim(key string, like creation) (waiter, bool) {
	defer func() {
		select {
		case w.wake <- struct{}{}:
		default: // it is about to look anyway
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = time.Now()
	w.kinds = slices.DeleteFunc(w.kinds, func(k kind) bool {
		return k.key == key || k.like.Config.Image == like.Config.Image && k.like.image != like.image // pulled anew
	})
	w.kinds = slices.Insert(w.kinds, 0, kind{key, like, w.asked})
	w.kinds = w.kinds[:min(len(w.kinds), kinds)]
	n := slices.IndexFunc(w.ready, func(one waiter) bool { return one.key == key })
	if n < 0 {
		return waiter{}, false
	}
	one := w.ready[n]
	w.ready = slices.Delete(w.ready, n, n+1)
	return one, true
}

// give hands a token to the forgexec of a container. One that has a token takes no
// other.
func (w *waiting) give(ctx context.Context, id, token string) error {
	stream, err := w.client.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true})
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	defer stream.Close()
	if _, err := io.WriteString(stream.Conn, token+"\n"); err != nil {
		return fmt.Errorf("write to container %s: %w", id, err)
	}
	return nil
}
