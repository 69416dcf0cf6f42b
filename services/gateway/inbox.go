package gateway

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// inbox stores deliveries. A second delivery of an id whose first is on its way
// to the disk is answered with the first; one whose first is there is found by
// the unique index, which alone knows what other replicas have stored.
type inbox struct {
	store  *store
	log    *slog.Logger
	stored func() // called after each batch
	writer *batcher[*arrival]

	mu      sync.Mutex
	pending map[string]*arrival // by id, from put until its batch has ended
	failing bool                // as of the last batch; the writer's alone
}

// arrival is a delivery on its way to the disk.
type arrival struct {
	delivery
	payload []byte        // snappy
	ended   chan struct{} // closed when err says how its batch ended
	err     error
}

func newInbox(store *store, log *slog.Logger, stored func()) *inbox {
	b := &inbox{store: store, log: log, stored: stored, pending: map[string]*arrival{}}
	b.writer = newBatcher(b.commit)
	return b
}

// put returns nil once the delivery is on disk.
func (b *inbox) put(ctx context.Context, a *arrival) error {
	b.mu.Lock()
	first, second := b.pending[a.guid]
	if !second {
		a.ended = make(chan struct{})
		b.pending[a.guid] = a
	}
	b.mu.Unlock()
	if second {
		select {
		case <-first.ended:
			return first.err
		case <-ctx.Done():
			return errLate
		}
	}
	err := b.writer.do(ctx, a)
	if err != nil {
		b.end(err, a) // where the writer has not, or will not
	}
	return err
}

// end tells those who wait how it went and forgets the arrivals: what was not
// stored may come again.
func (b *inbox) end(err error, arrivals ...*arrival) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range arrivals {
		if b.pending[a.guid] == a {
			delete(b.pending, a.guid)
			a.err = err
			close(a.ended)
		}
	}
}

// commit stores a batch, or tells all in it to come again.
func (b *inbox) commit(ctx context.Context, batch []*arrival) error {
	err := b.store.insert(ctx, batch)
	switch {
	case err == nil && b.failing:
		b.log.InfoContext(ctx, "deliveries are stored again")
	case err != nil && !b.failing: // said once: a line for each refused batch could fill the disk
		b.log.ErrorContext(ctx, "storing deliveries failed; GitHub is answered 503 until they can be stored", "count", len(batch), "error", err)
	}
	if b.failing = err != nil; b.failing {
		err = status.Error(codes.Unavailable, "the delivery could not be stored: send it again")
	}
	b.end(err, batch...)
	if err == nil {
		b.stored()
	}
	return err
}

func (b *inbox) run(ctx context.Context) error { return b.writer.run(ctx) }
