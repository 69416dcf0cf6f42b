package store

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Notifier wakes those who wait for a change: at once for one made in this
// process, and soon for one made by another replica, which Store.FollowChanges
// brings.
type Notifier struct {
	mu     sync.Mutex
	topics map[string]map[chan struct{}]struct{}
}

func newNotifier() *Notifier { return &Notifier{topics: map[string]map[chan struct{}]struct{}{}} }

// Subscribe returns a channel that holds a value once something has changed
// since it was read last. Subscribe before looking, or a change slips between;
// and leave in the end.
func (n *Notifier) Subscribe(topics ...string) (changed <-chan struct{}, leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := make(chan struct{}, 1)
	for _, topic := range topics {
		if n.topics[topic] == nil {
			n.topics[topic] = map[chan struct{}]struct{}{}
		}
		n.topics[topic][c] = struct{}{}
	}
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, topic := range topics {
			if delete(n.topics[topic], c); len(n.topics[topic]) == 0 {
				delete(n.topics, topic)
			}
		}
	}
}

// Notify tells those in this process who wait for a topic. Of a change Tx.Notify
// tells.
func (n *Notifier) Notify(topics ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, topic := range topics {
		for c := range n.topics[topic] {
			select {
			case c <- struct{}{}:
			default: // a change that nobody has looked at yet says the same
			}
		}
	}
}

// notifyAll tells everybody that anything may have changed.
func (n *Notifier) notifyAll() {
	n.mu.Lock()
	topics := slices.Collect(maps.Keys(n.topics))
	n.mu.Unlock()
	n.Notify(topics...)
}

// idle reports whether nobody waits.
func (n *Notifier) idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.topics) == 0
}

// BuildTopic is that something of a build has changed.
func BuildTopic(id string) string { return "build " + id }

// LogTopic is that the log of a build has grown or is over.
func LogTopic(id string) string { return "log " + id }

// RunnerTopic is that the runner of a build has something to be told.
func RunnerTopic(id string) string { return "runner " + id }

// lookAnyway is how long who waits for a topic relies on hearing of it, about.
const lookAnyway = 30 * time.Second

// LookAnyway is a timer for those who wait for a topic: once it has fired they
// look without having been told. They do not all do so at the same time.
func LookAnyway() *time.Ticker {
	return time.NewTicker(lookAnyway - rand.N(lookAnyway/4)) //nolint:gosec // it only spreads those who wait
}
