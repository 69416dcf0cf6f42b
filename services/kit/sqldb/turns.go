package sqldb

import (
	"context"
	"sync/atomic"
	"time"
)

// turns has those who write come one after the other, in the order in which they asked.
// A pool of one connection picks any of those who wait: of many, one may wait for ever so
// long. The zero value lets everybody go on at once.
type turns struct {
	held   chan struct{} // holds one while somebody writes; who waits to put his there is served in order
	waited atomic.Int64  // how long all of them have, a duration
}

// take waits for a turn. Who has it says when it is over.
func (t *turns) take(ctx context.Context) (over func(), err error) {
	if t.held == nil {
		return func() {}, nil
	}
	over = func() { <-t.held }
	select {
	case t.held <- struct{}{}:
		return over, nil
	default:
	}
	begin := time.Now()
	defer func() { t.waited.Add(int64(time.Since(begin))) }()
	select {
	case t.held <- struct{}{}:
		return over, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
