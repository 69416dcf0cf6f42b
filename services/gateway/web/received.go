package web

import (
	"context"
	"errors"
	"io"
)

// received is what a room sends in pieces, as http.ServeContent reads it: nothing of it
// is held but one message.
type received struct {
	size int64
	// start has the room send, from a byte on, and returns what receives the next piece.
	start func(at int64) (next func() ([]byte, error), cancel context.CancelFunc, err error)

	wanted int64                  // where the next Read reads
	next   func() ([]byte, error) // nil: nothing is being sent
	cancel context.CancelFunc
	at     int64  // where rest begins
	rest   []byte // of the last piece
	err    error  // why it cannot be read
}

// sends has what is sent from now on come from next.
func (r *received) sends(at int64, next func() ([]byte, error), cancel context.CancelFunc) {
	r.next, r.cancel, r.at, r.rest = next, cancel, at, nil
}

func (r *received) close() {
	if r.next != nil {
		r.cancel()
		r.next = nil
	}
}

// Seek says where the next Read begins.
func (r *received) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.wanted
	case io.SeekEnd:
		offset += r.size
	}
	r.wanted = offset
	return offset, nil
}

// Read reads on where the one before ended, or where Seek has said.
func (r *received) Read(p []byte) (int, error) {
	if r.err == nil && r.wanted < r.size {
		r.err = r.fill()
	}
	if r.err != nil {
		return 0, r.err
	}
	if r.wanted >= r.size {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(int64(len(r.rest)), r.size-r.wanted)])
	r.rest = r.rest[n:]
	r.at += int64(n)
	r.wanted = r.at
	return n, nil
}

// fill has something in rest.
func (r *received) fill() error {
	if r.next == nil || r.at != r.wanted {
		r.close()
		next, cancel, err := r.start(r.wanted)
		if err != nil {
			return err
		}
		r.sends(r.wanted, next, cancel)
	}
	for len(r.rest) == 0 {
		var err error
		if r.rest, err = r.next(); err != nil {
			return err
		}
	}
	return nil
}

// begin has the first bytes read.
func (r *received) begin() error {
	if _, err := r.Read(nil); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
