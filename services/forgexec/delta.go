package forgexec

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// base is what a delta is applied to: in memory, or in a file where it is large.
type base struct {
	memory []byte
	file   *os.File
	size   int64
}

// room makes place for so many bytes.
func (b *base) room(size int64) (err error) {
	if b.size = size; size > maxBase {
		return errPack
	}
	if size <= maxInMemory {
		b.memory = make([]byte, 0, size)
		return nil
	}
	if b.file, err = os.CreateTemp("", "forge-base-"); err != nil {
		return err
	}
	return os.Remove(b.file.Name()) // it lives as long as it is open
}

// Write implements io.Writer.
func (b *base) Write(p []byte) (int, error) {
	if b.file != nil {
		return b.file.Write(p)
	}
	b.memory = append(b.memory, p...)
	return len(p), nil
}

// copyTo copies a part of it.
func (b *base) copyTo(w *bufio.Writer, at, size int64) (err error) {
	if b.file != nil {
		_, err = io.Copy(w, io.NewSectionReader(b.file, at, size))
	} else {
		_, err = w.Write(b.memory[at : at+size])
	}
	return err
}

func (b *base) close() {
	if b.file != nil {
		_ = b.file.Close() // nobody reads it any more
	}
}

// patch applies a delta: it copies parts of the base, and takes others as they come.
// room is told the size of the result first.
func patch(out *bufio.Writer, of *base, delta *bufio.Reader, room func(size int64) error) error {
	before, err := deltaSize(delta)
	if err != nil || before != of.size {
		return errPack
	}
	left, err := deltaSize(delta)
	if err != nil {
		return err
	}
	if err := room(left); err != nil {
		return err
	}
	var inserted [127]byte
	for {
		op, err := delta.ReadByte()
		if errors.Is(err, io.EOF) && left == 0 {
			return out.Flush()
		}
		if err != nil || op == 0 {
			return errors.Join(errPack, err)
		}
		at, size := int64(0), int64(op)
		if op&0x80 != 0 {
			at, size, err = deltaCopy(op, delta)
		} else {
			_, err = io.ReadFull(delta, inserted[:size])
		}
		if left -= size; err != nil || left < 0 || op&0x80 != 0 && at+size > before {
			return errors.Join(errPack, err)
		}
		if op&0x80 != 0 {
			err = of.copyTo(out, at, size)
		} else {
			_, err = out.Write(inserted[:size])
		}
		if err != nil {
			return err
		}
	}
}

func deltaSize(delta *bufio.Reader) (int64, error) {
	size, err := binary.ReadUvarint(delta)
	if err != nil || size > 1<<62 {
		return 0, errors.Join(errPack, err)
	}
	return int64(size), nil
}

// deltaCopy reads which bytes are given: four of the offset, three of the size.
func deltaCopy(op byte, delta *bufio.Reader) (at, size int64, err error) {
	for bit := range 7 {
		if op>>bit&1 == 0 {
			continue
		}
		c, err := delta.ReadByte()
		if err != nil {
			return 0, 0, err
		}
		if bit < 4 {
			at |= int64(c) << (8 * bit)
		} else {
			size |= int64(c) << (8 * (bit - 4))
		}
	}
	if size == 0 {
		size = 1 << 16
	}
	return at, size, nil
}
