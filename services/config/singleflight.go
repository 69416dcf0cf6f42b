package config

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// singleflight lets all who ask for the same key at once share one run. Unlike that
// of x/sync it belongs to none of them: the run goes on while anybody waits, and
// the last to leave stops it and waits until it has ended.
type singleflight[K comparable, V any] struct {
	mu      sync.Mutex
	running map[K]*sharedRun[V]
}

type sharedRun[V any] struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{} // closed once value and err are set
	value   V
	err     error
}

func (f *singleflight[K, V]) do(ctx context.Context, key K, run func(context.Context) (V, error)) (V, error) {
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

func (f *singleflight[K, V]) join(ctx context.Context, key K, run func(context.Context) (V, error)) *sharedRun[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	shared := f.running[key]
	if shared == nil {
		runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		shared = &sharedRun[V]{cancel: cancel, done: make(chan struct{})}
		if f.running == nil {
			f.running = map[K]*sharedRun[V]{}
		}
		f.running[key] = shared
		go func() {
			defer cancel()
			shared.execute(runCtx, run)
			f.forget(key, shared)
			close(shared.done)
		}()
	}
	shared.waiting++
	return shared
}

// execute calls the function. It makes an error of a panic, since the function reads
// files of strangers.
func (f *sharedRun[V]) execute(ctx context.Context, run func(context.Context) (V, error)) {
	defer func() {
		if cause := recover(); cause != nil {
			f.err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	f.value, f.err = run(ctx)
}

// leave ends one wait. It stops the run where that was the last, and returns
// whether it was.
func (f *singleflight[K, V]) leave(key K, shared *sharedRun[V]) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	shared.waiting--
	if shared.waiting > 0 {
		return false
	}
	shared.cancel()
	if f.running[key] == shared { // who asks now starts another run
		delete(f.running, key)
	}
	return true
}

func (f *singleflight[K, V]) forget(key K, shared *sharedRun[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[key] == shared {
		delete(f.running, key)
	}
}
