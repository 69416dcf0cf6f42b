// Package chunks cuts streams into pieces by what they hold, so that two streams
// which are alike for the most part have most of their pieces in common, and packs
// pieces so that what was changed on the way is found.
package chunks

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	cdc "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // is how Split cuts
	"github.com/klauspost/compress/zstd"
)

// Sizes of chunks in bytes: all but the last of a stream have at least the least.
const (
	Least = 32 << 10
	Usual = 64 << 10
	Most  = 512 << 10
)

// Digest is the SHA-256 of a chunk.
type Digest = [sha256.Size]byte

// Split cuts a stream and hands on one chunk after the other, which stays as it is
// until the next. Equal streams are cut alike, today and by later versions: what was
// kept would be kept twice otherwise.
func Split(r io.Reader, each func(chunk []byte) error) error {
	cutter, err := cdc.NewChunker("fastcdc", r, &cdc.ChunkerOpts{MinSize: Least, NormalSize: Usual, MaxSize: Most})
	if err != nil {
		return fmt.Errorf("cut a stream into chunks: %w", err)
	}
	for {
		chunk, err := cutter.Next()
		last := errors.Is(err, io.EOF) // with a chunk, or without
		if err != nil && !last {
			return err
		}
		if len(chunk) > 0 {
			if err := each(chunk); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// Packer compresses chunks. It is for one goroutine.
type Packer struct{ encoder *zstd.Encoder }

// NewPacker returns a packer.
func NewPacker() (*Packer, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(Most))
	return &Packer{encoder}, err
}

// Pack appends the compressed chunk.
func (p *Packer) Pack(to, chunk []byte) []byte { return p.encoder.EncodeAll(chunk, to) }

// MostPacked is the greatest size of a packed chunk in bytes.
const MostPacked = Most + 1<<10

// Unpacker unpacks chunks. It is for one goroutine.
type Unpacker struct{ decoder *zstd.Decoder }

// NewUnpacker returns an unpacker, which takes little memory whatever it is given.
func NewUnpacker() (*Unpacker, error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(Most), zstd.WithDecoderLowmem(true))
	return &Unpacker{decoder}, err
}

// Close frees what it holds.
func (u *Unpacker) Close() { u.decoder.Close() }

// ErrBroken is that a chunk is not what it was when its digest was taken.
var ErrBroken = errors.New("a chunk is not what it was when it was stored")

// Unpack returns a chunk in the room of to, whose content is lost. Its error is
// ErrBroken where the chunk has another size or digest.
func (u *Unpacker) Unpack(to, packed []byte, size int, digest Digest) ([]byte, error) {
	if size < 0 || size > Most {
		return nil, ErrBroken
	}
	chunk, err := u.decoder.DecodeAll(packed, to[:0])
	if err != nil || len(chunk) != size || sha256.Sum256(chunk) != digest {
		return nil, ErrBroken
	}
	return chunk, nil
}
