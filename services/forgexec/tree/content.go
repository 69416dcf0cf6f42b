package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// ChangedError is that a file is not what it was when it was listed.
type ChangedError struct{ Name string }

func (e ChangedError) Error() string { return e.Name + " was changed while it was read" }

// Content reads the bytes of all files of a listing, one after the other.
type Content struct {
	roots   []string
	entries *entries
	file    *os.File // nil where the next is to be opened first
	name    string   // of the file
	left    int64    // of the file
}

// Content begins at the first file. It must be closed.
func (l *Listing) Content() (*Content, error) {
	entries, err := l.Index.entries()
	return &Content{roots: l.roots, entries: entries}, err
}

// Close closes the file that is open.
func (c *Content) Close() {
	c.leave()
	c.entries.close()
}

func (c *Content) leave() {
	if c.file != nil {
		_ = c.file.Close() // it is only read
		c.file = nil
	}
}

// Read reads on.
func (c *Content) Read(p []byte) (int, error) {
	for c.left == 0 {
		if err := c.advance(); err != nil {
			return 0, err
		}
	}
	if c.file == nil {
		if err := c.open(0); err != nil {
			return 0, err
		}
	}
	n, err := c.file.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.EOF) && n == 0 {
		return 0, ChangedError{c.name}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Skip passes over so many bytes, most of them unread.
func (c *Content) Skip(n int64) error {
	for n > 0 {
		if c.left == 0 {
			if err := c.advance(); err != nil {
				return err
			}
			continue
		}
		step := min(n, c.left)
		if step < c.left {
			if c.file == nil {
				if err := c.open(step); err != nil {
					return err
				}
			} else if _, err := c.file.Seek(step, io.SeekCurrent); err != nil {
				return err
			}
		}
		c.left -= step
		n -= step
	}
	return nil
}

// advance goes to the next file that has bytes.
func (c *Content) advance() error {
	c.leave()
	for {
		entry, err := c.entries.next()
		if err != nil {
			return err
		}
		if entry == nil {
			return io.EOF
		}
		if entry.GetType() == schedulerv1.FileEntry_TYPE_FILE && entry.GetSize() > 0 {
			c.name, c.left = at(c.roots, entry), entry.GetSize()
			return nil
		}
	}
}

// open opens the file whose bytes are all left, and goes to an offset.
func (c *Content) open(offset int64) error {
	file, err := os.OpenFile(c.name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return ChangedError{c.name}
	}
	if err != nil {
		return err
	}
	c.file = file
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != c.left {
		return ChangedError{c.name}
	}
	if offset > 0 {
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("read %s: %w", c.name, err)
		}
	}
	return nil
}
