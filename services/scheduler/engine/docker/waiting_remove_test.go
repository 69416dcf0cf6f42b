package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// latecomer hangs up on the first request for something that is to wait, and passes it to
// the Docker engine after the next look at what is there once that is due.
type latecomer struct {
	create string // what is asked for
	due    atomic.Bool

	mu   sync.Mutex
	held *http.Request
	came bool
}

func (l *latecomer) meddle(w http.ResponseWriter, r *http.Request, engine http.Handler) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.held == nil && strings.HasSuffix(r.URL.Path, l.create):
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err != nil || !strings.Contains(r.URL.RawQuery+string(body), "forge_waiting_") {
			return false
		}
		l.held = r.Clone(context.WithoutCancel(r.Context()))
		l.held.Body = io.NopCloser(bytes.NewReader(body))
		panic(http.ErrAbortHandler)
	case l.held != nil && !l.came && l.due.Load() && strings.HasSuffix(r.URL.Path, "/networks"):
		engine.ServeHTTP(w, r)
		engine.ServeHTTP(httptest.NewRecorder(), l.held)
		l.came = true
		return true
	}
	return false
}

func (l *latecomer) waits() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		return errors.New("nothing that waits was asked for yet")
	}
	return nil
}

// What the Docker engine gave no answer about comes to be while Forge stops.
func TestWhatComesToBeLateIsRemovedAtTheEnd(t *testing.T) {
	for _, create := range []string{"/networks/create", "/containers/create"} {
		t.Run(path.Dir(create)[1:], func(t *testing.T) {
			wire, late := newCutter(t, false), &latecomer{create: create}
			wire.meddle.Store(late.meddle)
			r := newRig(t, docker.Config{Host: wire.host(), Waiting: 1})
			spec := r.spec(r.image(t))
			r.start(t, spec)
			kittest.Eventually(t, soon, late.waits)
			if err := r.Stop(t.Context(), spec.Attempt); err != nil {
				t.Error(err)
			}
			late.due.Store(true)
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if !late.came {
				t.Error("nothing came late")
			}
			if left := r.left(t.Context(), t); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// refusals answers the first requests of one kind with an error.
type refusals struct {
	method, below string
	left          atomic.Int32
}

func (f *refusals) meddle(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
	if r.Method != f.method || !strings.Contains(r.URL.Path, f.below) || f.left.Add(-1) < 0 {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write([]byte(`{"message": "driver failed to remove root filesystem: device or resource busy"}`))
	return true
}

func TestRemovalThatFailsAtTheEndIsTriedAgain(t *testing.T) {
	for _, below := range []string{"/containers/", "/networks/forge_waiting_"} {
		t.Run(strings.Trim(below, "/"), func(t *testing.T) {
			wire, refused := newCutter(t, false), &refusals{method: http.MethodDelete, below: below}
			wire.meddle.Store(refused.meddle)
			r := newRig(t, docker.Config{Host: wire.host(), Waiting: 1})
			spec := r.spec(r.image(t))
			r.start(t, spec)
			r.waiting(t)
			if err := r.Stop(t.Context(), spec.Attempt); err != nil {
				t.Error(err)
			}
			refused.left.Store(3)
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if left := r.left(t.Context(), t); left != "" || refused.left.Load() > 0 {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// One that is replaced and cannot be removed at first goes with the next look, not when
// it is old.
func TestRemovalThatFailsIsTriedAgainSoon(t *testing.T) {
	wire, refused := newCutter(t, false), &refusals{method: http.MethodDelete, below: "/containers/"}
	wire.meddle.Store(refused.meddle)
	r := newRig(t, docker.Config{Host: wire.host(), Waiting: 1, TidyEvery: 50 * time.Millisecond})
	r.start(t, r.spec(r.image(t)))
	before := r.waiting(t)
	refused.left.Store(2)
	r.start(t, r.spec(r.image(t))) // whose kind takes the only place
	kittest.Eventually(t, soon, func() error {
		found := waits(t, r.api, r.config.Instance)
		if len(found) != 1 || found[0].ID == before.ID || refused.left.Load() > 0 {
			return fmt.Errorf("%d containers wait, %d removals are still to fail", len(found), refused.left.Load())
		}
		return nil
	})
}

// The container that names it stays until the network is gone.
func TestNetworkOfWhatHadWaitedIsNotForgotten(t *testing.T) {
	wire, refused := newCutter(t, false), &refusals{method: http.MethodDelete, below: "/networks/forge_waiting_"}
	wire.meddle.Store(refused.meddle)
	r := newRig(t, docker.Config{Host: wire.host()})
	spec := r.spec(r.image(t))
	if err := r.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r.start(t, spec)
	refused.left.Store(1)
	if err := r.Stop(t.Context(), spec.Attempt); err == nil {
		t.Error("its network was not removed: no error")
	}
	r.listed(t, func(c engine.Container) bool { return c.Attempt == spec.Attempt && !c.Running })
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
	if left := r.left(t.Context(), t); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// Replicas share an instance and may share a Docker engine: what one keeps ready is not
// the other's to remove, neither at its begin, nor now and then, nor at its end.
func TestReplicasLeaveEachOthersContainersAlone(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1, TidyEvery: 50 * time.Millisecond})
	image := r.image(t)
	r.start(t, r.spec(image))
	ready := r.waiting(t)
	config := r.config
	var looks atomic.Int32
	wire := newCutter(t, false)
	wire.meddle.Store(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if strings.HasSuffix(r.URL.Path, "/networks") {
			looks.Add(1)
		}
		return false
	})
	config.Host = wire.host()
	replica, err := docker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	spec := r.spec(image)
	if err := replica.Start(t.Context(), spec); err != nil {
		t.Error(err)
	}
	if r.inspect(t, "forge-"+spec.Attempt).ID == ready.ID {
		t.Error("the replica took what waits for another")
	}
	kittest.Eventually(t, soon, func() error {
		if found := waits(t, r.api, config.Instance); len(found) != 2 || looks.Load() < 5 {
			return fmt.Errorf("%d containers wait, want one of each; %d looks", len(found), looks.Load())
		}
		return nil
	})
	if err := replica.Close(); err != nil {
		t.Error(err)
	}
	if found := waits(t, r.api, config.Instance); len(found) != 1 || found[0].ID != ready.ID || found[0].State != container.StateRunning {
		t.Errorf("once the replica has stopped, there wait %v", found)
	}
}
