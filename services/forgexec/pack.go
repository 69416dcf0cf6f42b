package forgexec

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zlib"
)

// Kinds of objects in a pack (gitformat-pack).
const (
	packTypeBlob     = 3
	packTypeOfsDelta = 6
	packTypeRefDelta = 7
)

const (
	// maxChain is how many deltas stand on each other: as git allows at most.
	maxChain = 4095
	// maxInMemory is from how many bytes on the base of a delta is a file.
	maxInMemory = 16 << 20
	// maxBase is how many a base may have.
	maxBase = 2 << 30
	// maxKeptBases bounds the bytes of bases that one reader keeps for other deltas.
	maxKeptBases = 16 << 20
	// packBuffer is how much of a pack is read at once: few files are larger.
	packBuffer = 32 << 10
	// copyBuffer is how much of a file is written at once.
	copyBuffer = 64 << 10
)

var errPack = errors.New("the pack is not as git writes it")

// packReader reads files from a pack. It is used by one goroutine at a time.
type packReader struct {
	file  *growing
	index *packIndex

	at      packSection
	input   *bufio.Reader // of that
	inflate io.ReadCloser // for one object after the other
	delta   *bufio.Reader // of that
	out     *bufio.Writer
	bases   map[int64]*base
	kept    int64 // bytes in these
	copying []byte
}

func newPackReader(file *growing, index *packIndex) *packReader {
	p := &packReader{
		file: file, index: index, at: packSection{of: file}, delta: bufio.NewReader(nil), out: bufio.NewWriterSize(nil, copyBuffer),
		bases: map[int64]*base{}, copying: make([]byte, copyBuffer),
	}
	p.input = bufio.NewReaderSize(&p.at, packBuffer)
	return p
}

// seek has the next byte that is read be the one at an offset. What was read already is
// not read again.
func (p *packReader) seek(offset int64) {
	ahead := offset - (p.at.offset - int64(p.input.Buffered()))
	if ahead >= 0 && ahead <= int64(p.input.Buffered()) {
		_, _ = p.input.Discard(int(ahead)) // all of it is there
		return
	}
	p.at.offset = offset
	p.input.Reset(&p.at)
}

// object is one as it lies in the pack.
type object struct {
	kind byte
	size int64 // of what follows, inflated
	base int64 // where that of a delta is
}

// open begins an object: what follows it is read from p.inflate.
func (p *packReader) open(offset int64) (o object, err error) {
	p.seek(offset)
	if o, err = p.header(offset); err != nil {
		return o, p.broken(err)
	}
	if p.inflate == nil {
		p.inflate, err = zlib.NewReader(p.input)
	} else {
		err = p.inflate.(zlib.Resetter).Reset(p.input, nil) //nolint:forcetypeassert // zlib's readers are
	}
	return o, p.broken(err)
}

func (p *packReader) header(offset int64) (o object, err error) {
	c, err := p.input.ReadByte()
	if err != nil {
		return o, errPack
	}
	o.kind, o.size = c>>4&7, int64(c&15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if c, err = p.input.ReadByte(); err != nil || shift > 53 {
			return o, errPack
		}
		o.size |= int64(c&0x7f) << shift
	}
	switch o.kind {
	case packTypeBlob:
	case packTypeOfsDelta:
		back, err := p.back()
		if o.base = offset - back; err != nil || back <= 0 || o.base <= 0 {
			return o, errPack
		}
	case packTypeRefDelta:
		var name objectName
		if _, err := io.ReadFull(p.input, name[:]); err != nil {
			return o, errPack
		}
		o.base, err = p.index.find(name)
		return o, err
	default:
		return o, errPack
	}
	return o, nil
}

// back is how far before an object its base begins.
func (p *packReader) back() (back int64, err error) {
	for n := 0; ; n++ {
		c, err := p.input.ReadByte()
		if err != nil || n > 8 {
			return 0, errPack
		}
		if n > 0 {
			back++
		}
		if back = back<<7 | int64(c&0x7f); c&0x80 == 0 {
			return back, nil
		}
	}
}

// blob copies a blob. room is told its size first.
func (p *packReader) blob(w io.Writer, name objectName, room func(size int64) error) error {
	offset, err := p.index.find(name)
	if err != nil {
		return err
	}
	return p.write(w, offset, 0, room)
}

// write copies a blob which is the base of so many deltas.
func (p *packReader) write(w io.Writer, offset int64, chain int, room func(size int64) error) error {
	o, err := p.open(offset)
	if err != nil {
		return err
	}
	if o.kind == packTypeBlob {
		if err := room(o.size); err != nil {
			return err
		}
		return p.inflateTo(w, o.size)
	}
	if chain == maxChain {
		return errPack
	}
	from, done, err := p.baseOf(o, chain)
	if err != nil {
		return err
	}
	defer done()
	if _, err := p.open(offset); err != nil { // reading the base has moved on
		return err
	}
	p.delta.Reset(io.LimitReader(p.inflate, o.size))
	p.out.Reset(w)
	if err := patch(p.out, from, p.delta, room); err != nil {
		return p.broken(err)
	}
	return p.ends()
}

// inflateTo copies so many bytes, after which the object has to end.
func (p *packReader) inflateTo(w io.Writer, size int64) error {
	for filled := 0; ; {
		n, err := p.inflate.Read(p.copying[filled:])
		filled += n
		if size -= int64(n); size < 0 {
			return errPack
		}
		if filled == len(p.copying) || err != nil {
			if _, err := w.Write(p.copying[:filled]); err != nil {
				return err
			}
			filled = 0
		}
		switch {
		case errors.Is(err, io.EOF) && size == 0:
			return nil
		case err != nil:
			return p.broken(err)
		}
	}
}

// ends reads the checksum of an object, which stands at its end.
func (p *packReader) ends() error {
	n, err := p.inflate.Read(p.copying[:1])
	if n > 0 || !errors.Is(err, io.EOF) {
		return p.broken(err)
	}
	return nil
}

// broken is why the pack will never be whole, if that is so, else the error.
func (p *packReader) broken(err error) error {
	if err == nil {
		return nil
	}
	return p.file.broken(err)
}

// baseOf is what a delta is to be applied to.
func (p *packReader) baseOf(o object, chain int) (_ *base, done func(), err error) {
	if kept, there := p.bases[o.base]; there {
		return kept, func() {}, nil
	}
	to := &base{}
	if err := p.write(to, o.base, chain+1, to.room); err != nil {
		to.close()
		return nil, nil, err
	}
	if to.file != nil {
		return to, to.close, nil
	}
	if p.kept += to.size; p.kept > maxKeptBases {
		clear(p.bases)
		p.kept = to.size
	}
	p.bases[o.base] = to
	return to, func() {}, nil
}
