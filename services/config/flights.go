package config

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// flights lets all who ask for the same key at once share one run. Unlike
// x/sync's singleflight it belongs to none of them: the run goes on while
// anybody waits, and the last to leave ends it and waits for that.
type flights[K comparable, V any] struct {
	mu      sync.Mutex
	running map[K]*flight[V]
}

type flight[V any] struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{} // closed once value and err are set
	value   V
	err     error
}

func (f *flights[K, V]) do(ctx context.Context, key K, run func(context.Context) (V, error)) (V, error) {
	shared := f.join(ctx, key, run)
	select {
	case <-shared.done:
	case <-ctx.Done():
		if f.leave(key, shared) {
			<-shared.done
		}
		var none V
		return none, ctx.Err()
	}
	return shared.value, shared.err
}

func (f *flights[K, V]) join(ctx context.Context, key K, run func(context.Context) (V, error)) *flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	shared := f.running[key]
	if shared == nil {
		runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		shared = &flight[V]{cancel: cancel, done: make(chan struct{})}
		if f.running == nil {
			f.running = map[K]*flight[V]{}
		}
		f.running[key] = shared
		go func() {
			defer cancel()
			shared.fly(runCtx, run)
			f.forget(key, shared)
			close(shared.done)
		}()
	}
	shared.waiting++
	return shared
}

// fly turns a panic into an error: what runs here reads strangers' files.
func (f *flight[V]) fly(ctx context.Context, run func(context.Context) (V, error)) {
	defer func() {
		if cause := recover(); cause != nil {
			f.err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	f.value, f.err = run(ctx)
}

// leave reports whether the one who leaves was the last.
func (f *flights[K, V]) leave(key K, shared *flight[V]) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	shared.waiting--
	if shared.waiting > 0 {
		return false
	}
	shared.cancel()
	if f.running[key] == shared { // who comes now starts anew
		delete(f.running, key)
	}
	return true
}

func (f *flights[K, V]) forget(key K, shared *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[key] == shared {
		delete(f.running, key)
	}
}
