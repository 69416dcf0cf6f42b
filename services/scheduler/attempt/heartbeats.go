package attempt

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// heartbeatsEvery is how long a heartbeat may wait for others to be stored with
	// it. An interval of heartbeats and this are together well below the grace.
	heartbeatsEvery = time.Second
	// heartbeatTries is how often it is tried to store one; then the next is due.
	heartbeatTries = 4
)

// heartbeats are those of all runners that are attached here. Each tick they are
// stored in one statement, from which it is also learned who is to be told of a
// cancellation or an end, should that news have been lost.
type heartbeats struct {
	service *Service
	mu      sync.Mutex
	heard   map[store.AttemptKey]int // how often it was tried to store
}

// note has a heartbeat stored soon.
func (h *heartbeats) note(of store.AttemptKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.heard == nil {
		h.heard = map[store.AttemptKey]int{}
	}
	h.heard[of] = 0
}

// run stores heartbeats until ctx ends.
func (h *heartbeats) run(ctx context.Context) error {
	tick := time.NewTicker(heartbeatsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := h.flush(ctx); err != nil && ctx.Err() == nil {
			h.service.log.WarnContext(ctx, "heartbeats not stored; tried again", "retry_in", heartbeatsEvery, "error", err)
		}
	}
}

// flush stores the heartbeats that were noted.
func (h *heartbeats) flush(ctx context.Context) error {
	h.mu.Lock()
	heard := h.heard
	h.heard = nil
	h.mu.Unlock()
	if len(heard) == 0 {
		return nil
	}
	recorded, err := h.service.store.RecordHeartbeats(ctx, slices.Collect(maps.Keys(heard)))
	var told []string
	for _, r := range recorded {
		delete(heard, r.AttemptKey)
		if r.Cancelled {
			told = append(told, store.RunnerTopic(r.BuildID))
		}
	}
	h.again(heard)
	if err != nil {
		return err
	}
	for of := range heard {
		told = append(told, store.RunnerTopic(of.BuildID))
	}
	h.service.store.Notifier.Notify(told...)
	return nil
}

// again keeps what was not stored for the next time, unless it was tried too often.
func (h *heartbeats) again(missed map[store.AttemptKey]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for of, tries := range missed {
		if _, newer := h.heard[of]; newer || tries+1 >= heartbeatTries {
			continue
		}
		if h.heard == nil {
			h.heard = map[store.AttemptKey]int{}
		}
		h.heard[of] = tries + 1
	}
}
