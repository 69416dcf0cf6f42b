package scheduler

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// prepared waits until sources were prepared, and returns the last.
func prepared(r *rig, n int) *configv1.GetSourceRequest {
	r.t.Helper()
	var last *configv1.GetSourceRequest
	kittest.Eventually(r.t, patience, func() error {
		r.config.mu.Lock()
		defer r.config.mu.Unlock()
		if len(r.config.prepared) != n {
			return fmt.Errorf("%d sources prepared, want %d", len(r.config.prepared), n)
		}
		last = r.config.prepared[n-1]
		return nil
	})
	return last
}

// What is prepared before the container is there is what its runner is given.
func TestSourceIsPreparedWhileTheContainerStarts(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		held := make(chan struct{})
		r.engine.mu.Lock()
		r.engine.held = held
		r.engine.mu.Unlock()
		id := r.built(opened(1, "aaa"))
		request := prepared(r, 1)
		if r.engine.running(id + "-1") {
			t.Error("the container is there before the source is asked for")
		}
		close(held)
		u := r.stream(r.spec(id, 1).Runner.Token, &schedulerv1.Hello{RunnerId: "runner-1", MasksSecrets: true, HeedsJobs: true, TakesCheckout: true, TakesPacked: true})
		for range 3 { // welcome, plan, source
			u.recv()
		}
		r.config.mu.Lock()
		defer r.config.mu.Unlock()
		if asked := r.config.sources[0]; !proto.Equal(asked, request) {
			t.Errorf("prepared %v, asked for %v", request, asked)
		}
	})
}

// A source that cannot be prepared, or takes its time, keeps no build from its runner.
func TestPreparationHoldsNothingUp(t *testing.T) {
	for name, prepare := range map[string]func(context.Context) error{
		"fails": func(context.Context) error { return errors.New("GitHub is down") },
		"hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(_ *testing.T, r *rig) {
				r.config.mu.Lock()
				r.config.prepare = prepare
				r.config.mu.Unlock()
				id := r.built(opened(1, "aaa"))
				prepared(r, 1)
				r.attach(r.spec(id, 1).Runner.Token)
				r.shown("aaa", "forge/test", schedulerv1.Build_STATE_RUNNING)
				r.stop()
			})
		})
	}
}
