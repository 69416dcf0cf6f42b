package gateway

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxBatch bounds how long an item waits for the others of its batch.
const maxBatch = 256

// batcher commits items in batches: those that come while a transaction is being
// committed share the next one, so that under load one sync of the disk serves
// many.
type batcher[T any] struct {
	commit  func(context.Context, []T) error
	queue   chan ticket[T]
	stopped chan struct{} // closed when nothing is committed any more
}

type ticket[T any] struct {
	item T
	done chan error // gets the outcome; buffered, so that nobody waits for a reader who left
}

func newBatcher[T any](commit func(context.Context, []T) error) *batcher[T] {
	return &batcher[T]{commit: commit, queue: make(chan ticket[T], maxBatch), stopped: make(chan struct{})}
}

// do returns nil once the item is committed. After another error of its own
// whether a last batch took the item along is not known.
func (b *batcher[T]) do(ctx context.Context, item T) error {
	t := ticket[T]{item, make(chan error, 1)}
	select {
	case b.queue <- t:
	case <-b.stopped:
		return errStopping
	case <-ctx.Done():
		return errLate
	}
	select {
	case err := <-t.done:
		return err
	case <-b.stopped:
		select {
		case err := <-t.done: // of the last batch
			return err
		default:
			return errStopping
		}
	case <-ctx.Done():
		return errLate
	}
}

var (
	errStopping = status.Error(codes.Unavailable, "Forge is stopping: send the delivery again")
	errLate     = status.Error(codes.Unavailable, "the delivery could not be stored in time: send it again")
)

// run is the one writer. A batch that began is committed even when ctx ends.
func (b *batcher[T]) run(ctx context.Context) error {
	defer close(b.stopped)
	var (
		tickets = make([]ticket[T], 0, maxBatch)
		items   = make([]T, 0, maxBatch)
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-b.queue:
			tickets = append(tickets[:0], first)
		}
		for len(tickets) < maxBatch && len(b.queue) > 0 {
			tickets = append(tickets, <-b.queue)
		}
		for _, t := range tickets {
			items = append(items, t.item)
		}
		err := b.commit(context.WithoutCancel(ctx), items)
		for _, t := range tickets {
			t.done <- err
		}
		clear(tickets)
		clear(items)
		items = items[:0]
	}
}
