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
	ends  time.Time
}

func newMemory[V any](now func() time.Time) *memory[V] {
	return &memory[V]{now: now, known: map[string]answer[V]{}}
}

// get is the answer that is known, or what ask says.
func (m *memory[V]) get(ctx context.Context, key string, ask func(context.Context) (V, error)) (V, error) {
	if a, ok := m.recall(key); ok {
		return a.value, a.err
	}
	var none V
	done := m.flight.DoChan(key, func() (any, error) {
		if a, ok := m.recall(key); ok { // which came while this call did
			return a, nil
		}
		value, err := ask(context.WithoutCancel(ctx)) // who asks may leave; others wait for the same
		return m.keep(key, value, err), nil
	})
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

func (m *memory[V]) keep(key string, value V, err error) answer[V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, life := m.now(), answerLife
	if err != nil {
		life = unsureLife
	}
	if len(m.known) >= mostAnswers {
		for key, a := range m.known {
			if !now.Before(a.ends) {
				delete(m.known, key)
			}
		}
		if len(m.known) >= mostAnswers {
			clear(m.known)
		}
	}
	a := answer[V]{value, err, now.Add(life)}
	m.known[key] = a
	return a
}
