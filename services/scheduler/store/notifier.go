package store

import (
	"sync"
	"time"
)

// Notifier wakes those who wait for a change made in this process. What other
// replicas change is found by asking again now and then.
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

func (n *Notifier) notify(topics ...string) {
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

// BuildTopic is that something of a build has changed.
func BuildTopic(id string) string { return "build " + id }

// LogTopic is that the log of a build has grown or is over.
func LogTopic(id string) string { return "log " + id }

// RunnerTopic is that the runner of a build has something to be told.
func RunnerTopic(id string) string { return "runner " + id }

// PollEvery is how often those who wait look for what other replicas changed.
const PollEvery = time.Second
