package forgexec

import (
	"cmp"
	"errors"
	"io"
	"os"
	"sync"
)

// growing is a file that one goroutine writes while others read what is there of it
// already.
type growing struct {
	file *os.File

	mu    sync.Mutex
	more  *sync.Cond
	size  int64
	whole bool
	err   error // why it will not be
}

func newGrowing(file *os.File) *growing {
	g := &growing{file: file}
	g.more = sync.NewCond(&g.mu)
	return g
}

// Write implements io.Writer. It fails once a reader has.
func (g *growing) Write(p []byte) (int, error) {
	if err := g.broken(nil); err != nil {
		return 0, err
	}
	n, err := g.file.Write(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.size += int64(n)
	g.more.Broadcast()
	return n, err
}

// end has readers wait no longer: all is there, or nothing more comes because of an
// error. The first word counts.
func (g *growing) end(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.whole && g.err == nil {
		g.whole, g.err = err == nil, err
	}
	g.more.Broadcast()
}

// until waits for the byte at an offset, and returns how many there are by then.
func (g *growing) until(offset int64) (size int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.size <= offset && !g.whole && g.err == nil {
		g.more.Wait()
	}
	return g.size, g.err
}

// broken is why the file will not be whole, else the error.
func (g *growing) broken(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return cmp.Or(g.err, err)
}

// packSection reads from an offset on.
type packSection struct {
	of     *growing
	offset int64
}

// Read implements io.Reader. It waits for the next byte, not for all that there is
// room for.
func (s *packSection) Read(p []byte) (int, error) {
	if s.offset < 0 {
		return 0, errPack
	}
	size, err := s.of.until(s.offset)
	if size <= s.offset && err != nil {
		return 0, err
	}
	if size <= s.offset {
		return 0, io.EOF
	}
	n, err := s.of.file.ReadAt(p[:min(int64(len(p)), size-s.offset)], s.offset)
	s.offset += int64(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}
