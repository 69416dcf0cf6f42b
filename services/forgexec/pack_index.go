package forgexec

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"sort"
	"syscall"
)

// What stands where in the index of a pack, version 2 (gitformat-pack).
const (
	packIndexMagic  = 0xff744f63 // \377tOc
	packIndexFanout = 8
	packIndexNames  = packIndexFanout + 256*4
)

// objectName is the SHA-1 of an object.
type objectName [20]byte

func parseObjectName(text string) (name objectName, err error) {
	if n, err := hex.Decode(name[:], []byte(text)[:min(len(text), 2*len(name))]); err != nil || n != len(name) || len(text) != 2*n {
		return name, errPack
	}
	return name, nil
}

// packIndex says where each object of a pack begins.
type packIndex struct {
	bytes   []byte // mapped
	objects int
}

func openPackIndex(root *os.Root, name string) (*packIndex, error) {
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 { // which cannot be mapped
		return nil, errPack
	}
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map the index: %w", err)
	}
	index, err := newPackIndex(mapped)
	if err != nil {
		_ = syscall.Munmap(mapped)
	}
	return index, err
}

func newPackIndex(content []byte) (*packIndex, error) {
	if len(content) < packIndexNames || binary.BigEndian.Uint32(content) != packIndexMagic || binary.BigEndian.Uint32(content[4:]) != 2 {
		return nil, errPack
	}
	index := &packIndex{bytes: content}
	if index.objects = index.upTo(255); len(content) < packIndexNames+index.objects*(len(objectName{})+8) {
		return nil, errPack
	}
	return index, nil
}

func (x *packIndex) close() { _ = syscall.Munmap(x.bytes) }

// upTo is how many names begin with this byte or a smaller one.
func (x *packIndex) upTo(first int) int {
	return int(binary.BigEndian.Uint32(x.bytes[packIndexFanout+4*first:]))
}

// find is where the object of a name begins.
func (x *packIndex) find(name objectName) (int64, error) {
	from, to := 0, x.upTo(int(name[0]))
	if name[0] > 0 {
		from = x.upTo(int(name[0]) - 1)
	}
	if from > to || to > x.objects {
		return 0, errPack
	}
	at := func(n int) []byte { return x.bytes[packIndexNames+n*len(name):][:len(name)] }
	n := from + sort.Search(to-from, func(i int) bool { return bytes.Compare(at(from+i), name[:]) >= 0 })
	if n == to || !bytes.Equal(at(n), name[:]) {
		return 0, fmt.Errorf("the pack lacks %x", name)
	}
	offsets := packIndexNames + x.objects*(len(name)+4) // after a checksum each
	offset := binary.BigEndian.Uint32(x.bytes[offsets+4*n:])
	if offset>>31 == 0 {
		return int64(offset), nil
	}
	large := offsets + 4*x.objects + 8*int(offset&^(1<<31)) // where one of 64 bits is
	if large+8 > len(x.bytes) {
		return 0, errPack
	}
	return int64(binary.BigEndian.Uint64(x.bytes[large:])), nil //nolint:gosec // one that is negative cannot be read from
}
