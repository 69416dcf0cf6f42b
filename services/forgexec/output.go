package forgexec

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// chunk fits, with what comes around it, into gRPC's buffers of 32 KiB; for more
	// it takes one of 1 MiB and clears that first.
	chunk = 31 << 10
	// linger is how long output waits for more of it: a follower does not notice,
	// and a step that prints line after line makes no report of each.
	linger = 20 * time.Millisecond
)

// pump carries what a step prints from its pipe to emit, in chunks, unchanged.
// emit may block, and so then does the step.
type pump struct {
	r    *os.File
	emit func([]byte)

	mu       sync.Mutex
	flushAt  time.Time // when what was read is handed on; zero: nothing was
	finishAt time.Time // when to stop waiting for the end; zero: not yet
}

// run returns when everybody has closed the pipe (true), or when the time that
// finish named has come and what was in the pipe by then is handed on (false).
func (p *pump) run() (eof bool) {
	buffer := make([]byte, chunk)
	used := 0
	flush := func() {
		if used == len(buffer) {
			p.emit(buffer)
			buffer = make([]byte, chunk)
		} else if used > 0 {
			p.emit(bytes.Clone(buffer[:used]))
		}
		used = 0
		p.arm(func() { p.flushAt = time.Time{} })
	}
	for {
		n, err := p.r.Read(buffer[used:])
		if n > 0 && used == 0 {
			p.arm(func() { p.flushAt = time.Now().Add(linger) })
		}
		used += n
		switch {
		case err == nil:
			if used == len(buffer) {
				flush()
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			flush()
			if p.over() {
				return p.rest()
			}
		default: // EOF
			flush()
			return true
		}
	}
}

// finish sets the time after which run no longer waits for the end.
func (p *pump) finish(at time.Time) {
	p.arm(func() { p.finishAt = at })
}

// arm sets the pipe's deadline to the earlier of the two times, after change.
func (p *pump) arm(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	next := p.flushAt
	if next.IsZero() || !p.finishAt.IsZero() && p.finishAt.Before(next) {
		next = p.finishAt
	}
	_ = p.r.SetReadDeadline(next) // a pipe always takes one
}

func (p *pump) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.finishAt.IsZero() && !time.Now().Before(p.finishAt)
}

// rest hands on what the pipe holds, without waiting for more: the step may have
// ended long ago, while emit was blocked. It takes no more than a pipe can hold,
// for whoever has it open may write for ever.
func (p *pump) rest() (eof bool) {
	const most = 1 << 20
	p.arm(func() { p.flushAt, p.finishAt = time.Time{}, time.Time{} })
	pipe, err := p.r.SyscallConn()
	if err != nil {
		return false
	}
	for taken := 0; taken < most; {
		buffer := make([]byte, chunk)
		var n int
		var failed error
		err := pipe.Read(func(fd uintptr) bool {
			n, failed = syscall.Read(int(fd), buffer)
			return true // whatever came, do not wait
		})
		switch {
		case err != nil, failed != nil: // EAGAIN: it is empty
			return false
		case n == 0:
			return true
		}
		p.emit(buffer[:n])
		taken += n
	}
	return false
}
