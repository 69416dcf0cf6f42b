package scheduler

import "sync"

// hub wakes those who wait for a change made in this process. What other
// replicas change is found by asking again now and then.
type hub struct {
	mu     sync.Mutex
	topics map[string]map[chan struct{}]struct{}
}

func newHub() *hub { return &hub{topics: map[string]map[chan struct{}]struct{}{}} }

// subscribe returns a channel that holds a value once something has changed
// since it was read last. Subscribe before looking, or a change slips between;
// and leave in the end.
func (h *hub) subscribe(topics ...string) (changed <-chan struct{}, leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{}, 1)
	for _, topic := range topics {
		if h.topics[topic] == nil {
			h.topics[topic] = map[chan struct{}]struct{}{}
		}
		h.topics[topic][c] = struct{}{}
	}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, topic := range topics {
			if delete(h.topics[topic], c); len(h.topics[topic]) == 0 {
				delete(h.topics, topic)
			}
		}
	}
}

func (h *hub) notify(topics ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, topic := range topics {
		for c := range h.topics[topic] {
			select {
			case c <- struct{}{}:
			default: // a change that nobody has looked at yet says the same
			}
		}
	}
}

// What can be waited for, by build id.
func buildTopic(id string) string  { return "build " + id }
func logTopic(id string) string    { return "log " + id }
func runnerTopic(id string) string { return "runner " + id }
