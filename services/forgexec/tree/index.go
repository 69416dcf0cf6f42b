package tree

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protodelim"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Index is a list of entries. It is kept compressed: there may be a million.
type Index struct {
	packed  bytes.Buffer
	encoder *zstd.Encoder
	// Size is of the index itself, in bytes.
	Size int64
}

// NewIndex returns an empty index, to be written to and then closed.
func NewIndex() (*Index, error) {
	index := &Index{}
	var err error
	index.encoder, err = zstd.NewWriter(&index.packed, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	return index, err
}

// Write adds a part of the index as Reader reads it.
func (x *Index) Write(p []byte) (int, error) {
	n, err := x.encoder.Write(p)
	x.Size += int64(n)
	return n, err
}

// Close ends the writing.
func (x *Index) Close() error { return x.encoder.Close() }

// Reader reads the entries, each with its length before it.
func (x *Index) Reader() (io.ReadCloser, error) {
	decoder, err := zstd.NewReader(bytes.NewReader(x.packed.Bytes()), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return decoder.IOReadCloser(), nil
}

// largestEntry bounds one, in bytes: two names of PATH_MAX and some numbers.
const largestEntry = 16 << 10

// entries reads one after the other; done after the last.
type entries struct {
	source io.ReadCloser
	r      *bufio.Reader
}

func (x *Index) entries() (*entries, error) {
	r, err := x.Reader()
	if err != nil {
		return nil, err
	}
	return &entries{r, bufio.NewReaderSize(r, 64<<10)}, nil
}

// next is nil after the last.
func (e *entries) next() (*schedulerv1.FileEntry, error) {
	entry := &schedulerv1.FileEntry{}
	err := protodelim.UnmarshalOptions{MaxSize: largestEntry}.UnmarshalFrom(e.r, entry)
	if errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilnil // there is no more
	}
	if err != nil {
		return nil, fmt.Errorf("the list of files is broken: %w", err)
	}
	return entry, nil
}

func (e *entries) close() { _ = e.source.Close() }
