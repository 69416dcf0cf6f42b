package enginetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

// Marks is what all builds of a test know of images.
type Marks struct {
	mu    sync.Mutex
	since map[string]time.Time
}

// Names are the images that are private.
func (m *Marks) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.since))
}

// Shows is what a build may show to every registry.
func (m *Marks) Shows(login engine.Login) engine.Registries { return shows{m, login} }

type shows struct {
	*Marks
	login engine.Login
}

func (s shows) Login(context.Context, string) (engine.Login, error) { return s.login, nil }

func (s shows) Private(_ context.Context, name string) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since[name], nil
}

func (s shows) Mark(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since == nil {
		s.since = map[string]time.Time{}
	}
	s.since[name] = time.Now()
	return nil
}

func (s shows) Unmark(_ context.Context, name string, since time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since[name].Equal(since) {
		delete(s.since, name)
	}
	return nil
}
