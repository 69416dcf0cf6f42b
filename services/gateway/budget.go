package gateway

import (
	"errors"
	"io"
	"sync"
)

const (
	// Bodies that are being read or stored take this much memory together, and
	// each as much as has come of it: two of GitHub's largest fit, and thousands
	// of the usual size.
	maxHeldBytes  = 64 << 20
	maxHeldBodies = 2000
)

var errBusy = errors.New("too many bodies in flight")

// budget bounds the bodies in flight.
type budget struct {
	mu            sync.Mutex
	bytes, bodies int
}

func (b *budget) take(bytes, bodies int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes+bytes > maxHeldBytes || b.bodies+bodies > maxHeldBodies {
		return false
	}
	b.bytes += bytes
	b.bodies += bodies
	return true
}

func (b *budget) give(bytes, bodies int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= bytes
	b.bodies -= bodies
}

// readAll reads r into buffer, which is as large as expected from the start:
// growing in steps costs more than the signature. A claimed length is believed
// up to a bound, so that a claim alone takes no memory; what it takes is in the
// budget, as it is in held.
func (b *budget) readAll(buffer []byte, r io.Reader, expected int64, held *int) ([]byte, error) {
	grow := func(size int) error {
		if !b.take(size-*held, 0) {
			return errBusy
		}
		*held = size
		if cap(buffer) < size {
			buffer = append(make([]byte, 0, size), buffer...)
		}
		return nil
	}
	if err := grow(int(min(max(expected, 512), maxPooled-1)) + 1); err != nil { // + 1 to meet the end without growing
		return buffer, err
	}
	for {
		if len(buffer) == min(cap(buffer), *held) {
			size := 2 * len(buffer)
			if expected >= int64(len(buffer)) {
				size = min(size, int(expected)+1)
			}
			if err := grow(size); err != nil {
				return buffer, err
			}
		}
		n, err := r.Read(buffer[len(buffer):min(cap(buffer), *held)])
		buffer = buffer[:len(buffer)+n]
		if errors.Is(err, io.EOF) {
			return buffer, nil
		}
		if err != nil {
			return buffer, err
		}
	}
}
