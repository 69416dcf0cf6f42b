package access

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// How long an answer counts. Where there was none, who asks at once again is not to have
// GitHub asked again.
const (
	answerLife = 2 * time.Minute
	unsureLife = 3 * time.Second
	// doubtEvery is how often one answer that refuses somebody is doubted.
	doubtEvery = 5 * time.Second
	// mostAnswers bounds what is remembered of one kind.
	mostAnswers = 20_000
)

// memory keeps answers for a while, and asks once for all who want the same.
type memory[V any] struct {
	now    func() time.Time
	flight singleflight.Group
	mu     sync.Mutex
	known  map[string]answer[V]
}

type answer[V any] struct {
	value V
	err   error
	// asked is when the question was put.
	asked, ends time.Time
	// doubted is when the question was put again because of a refusal.
	doubted time.Time
}

func newMemory[V any](now func() time.Time) *memory[V] {
	return &memory[V]{now: now, known: map[string]answer[V]{}}
}

// get is the answer that is known, or what ask says.
func (m *memory[V]) get(ctx context.Context, key string, ask func(context.Context) (V, error)) (V, error) {
	if a, ok := m.recall(key); ok {
		return a.value, a.err
	}
	done := m.flight.DoChan(key, func() (any, error) {
		if a, ok := m.recall(key); ok { // which came while this call did
			return a, nil
		}
		asked := m.now()
		value, err := ask(context.WithoutCancel(ctx)) // who asks may leave; others wait for the same
		return m.keep(key, answer[V]{value: value, err: err, asked: asked}), nil
	})
	return m.await(ctx, done)
}

// again is the answer for somebody whom the known one refuses. One from before since is
// doubted, which is to say asked for again, unless it was doubted a moment ago. It counts
// on where there is no other.
func (m *memory[V]) again(ctx context.Context, key string, since time.Time, ask func(context.Context) (V, error)) (V, error) {
	done := m.flight.DoChan("again "+key, func() (any, error) {
		known, doubt := m.doubt(key, since)
		if !doubt {
			return known, nil
		}
		value, err := ask(context.WithoutCancel(ctx))
		if err != nil {
			return known, nil //nolint:nilerr // the known answer has its own life
		}
		return m.keep(key, answer[V]{value: value, asked: known.doubted, doubted: known.doubted}), nil
	})
	return m.await(ctx, done)
}

// doubt returns the known answer, and whether to ask again.
func (m *memory[V]) doubt(key string, since time.Time) (answer[V], bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.known[key]
	now := m.now()
	if !ok || !a.asked.Before(since) || now.Sub(a.doubted) < doubtEvery {
		return a, false
	}
	a.doubted = now
	m.known[key] = a
	return a, true
}

func (m *memory[V]) await(ctx context.Context, done <-chan singleflight.Result) (none V, _ error) {
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case result := <-done:
		if a, ok := result.Val.(answer[V]); ok {
			return a.value, a.err
		}
		return none, result.Err
	}
}

func (m *memory[V]) recall(key string) (answer[V], bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.known[key]
	return a, ok && m.now().Before(a.ends)
}

func (m *memory[V]) keep(key string, a answer[V]) answer[V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, life := m.now(), answerLife
	if a.err != nil {
		life = unsureLife
	}
	if len(m.known) >= mostAnswers {
		for key, old := range m.known {
			if !now.Before(old.ends) {
				delete(m.known, key)
			}
		}
		if len(m.known) >= mostAnswers {
			clear(m.known)
		}
	}
	a.ends = now.Add(life)
	m.known[key] = a
	return a
}
