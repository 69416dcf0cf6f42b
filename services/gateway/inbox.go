package gateway

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxBatch bounds how long a delivery waits for the others of its batch.
const maxBatch = 256

// inbox stores deliveries in batches: those that come while a transaction is
// being committed share the next one, so that under load one sync of the disk
// serves many. A second delivery of the same id meets the first in its batch or
// in the database; either way it is answered only when the first is on disk.
type inbox struct {
	store  *store
	log    *slog.Logger
	stored func() // called after each batch

	queue   chan *arrival
	stopped chan struct{} // closed when nothing is stored any more
}

// arrival is a delivery on its way to the disk.
type arrival struct {
	delivery
	payload []byte     // snappy
	done    chan error // gets the outcome; buffered, so that nobody waits for a reader who left
}

func newInbox(store *store, log *slog.Logger, stored func()) *inbox {
	return &inbox{store: store, log: log, stored: stored, queue: make(chan *arrival, maxBatch), stopped: make(chan struct{})}
}

// put returns nil once the delivery is on disk.
func (b *inbox) put(ctx context.Context, a *arrival) error {
	a.done = make(chan error, 1)
	select {
	case b.queue <- a:
	case <-b.stopped:
		return status.Error(codes.Unavailable, "Forge is stopping: send the delivery again")
	case <-ctx.Done():
		return status.Error(codes.Unavailable, "the delivery could not be stored in time: send it again")
	}
	select {
	case err := <-a.done:
		return err
	case <-b.stopped:
		// Whether the last batch took it along is not known here; a second delivery does no harm.
		return status.Error(codes.Unavailable, "Forge is stopping: send the delivery again")
	case <-ctx.Done():
		return status.Error(codes.Unavailable, "the delivery could not be stored in time: send it again")
	}
}

// run is the one writer. A batch that began is committed even when ctx ends.
func (b *inbox) run(ctx context.Context) error {
	defer close(b.stopped)
	batch := make([]*arrival, 0, maxBatch)
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-b.queue:
			batch = append(batch[:0], first)
		}
		for len(batch) < maxBatch && len(b.queue) > 0 {
			batch = append(batch, <-b.queue)
		}
		err := b.store.insert(context.WithoutCancel(ctx), batch)
		if err != nil {
			b.log.ErrorContext(ctx, "deliveries not stored; GitHub was told 503", "count", len(batch), "error", err)
			err = status.Error(codes.Unavailable, "the delivery could not be stored: send it again")
		}
		for i, a := range batch {
			a.done <- err
			batch[i] = nil
		}
		if err == nil {
			b.stored()
		}
	}
}
