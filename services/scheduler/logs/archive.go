package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// ArchiveAfter lets what people wait for at the end of a build go first.
	ArchiveAfter = 5 * time.Second

	archiveRetryFirst = time.Second
	// ArchiveRetryMost is the longest pause after a failure.
	ArchiveRetryMost = 5 * time.Minute

	logsFolder = "logs/"
	// FrameSize is how much of a log a frame holds: who wants a byte of it reads so
	// much. It can change, since each blob's index has its own.
	FrameSize = 256 << 10
	// pageFrames bounds what one read brings.
	pageFrames = 8
	// StrayAfter is the age of a blob that no row knows and nobody is still writing.
	StrayAfter = 24 * time.Hour
)

// archiveLog does what is to be done about the log of an attempt that has ended.
func (l *Service) archiveLog(ctx context.Context, c Archive) {
	err := l.moveLog(ctx, c)
	if err == nil {
		return
	}
	wait := due.Backoff(c.tries+1, archiveRetryFirst, ArchiveRetryMost, rand.Float64)
	l.log.WarnContext(ctx, "log not moved or removed; it stays where it is", "attempt", store.AttemptName(c.BuildID, c.Attempt), "retry_in", wait, "error", err)
	err = l.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return archiveAgain(ctx, t, c, t.Now.Add(wait), c.tries+1)
	})
	if err != nil {
		l.log.WarnContext(ctx, "archive not settled; tried again when its lease is over", "error", err)
	}
}

// moveLog goes on from wherever a try before it ended. Each try writes a blob of
// its own, so that none changes what another's row tells of.
func (l *Service) moveLog(ctx context.Context, c Archive) error {
	if c.old {
		return l.removeLog(ctx, c)
	}
	more := true
	tidy := func(ctx context.Context, t *store.Tx) (err error) {
		if more, err = removeChunks(ctx, t, c.BuildID, c.Attempt); err != nil || more {
			return err
		}
		return archiveAgain(ctx, t, c, time.Time{}, 0)
	}
	if c.blob == "" {
		if err := l.WriteArchive(ctx, &c); err != nil {
			return fmt.Errorf("write %s: %w", c.blob, err)
		}
		err := l.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
			more = false
			if ours, err := ArchiveMoved(ctx, t, c); err != nil || !ours {
				return err
			}
			return tidy(ctx, t)
		})
		if err != nil {
			return err
		}
	}
	for more {
		if err := l.store.Write(ctx, tidy); err != nil {
			return err
		}
	}
	return nil
}

// removeLog removes the blob of a log that nobody reads any more.
func (l *Service) removeLog(ctx context.Context, c Archive) error {
	if c.blob != "" {
		if err := l.blobs.Remove(ctx, c.blob); err != nil {
			return err
		}
	}
	return l.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return removeArchive(ctx, t, c) })
}

// WriteArchive writes a log as zstd frames, one after the other, which zstd and
// its kin unpack as a whole, too. The index of its lines comes after them, in a frame
// that those skip.
func (l *Service) WriteArchive(ctx context.Context, c *Archive) error {
	a, err := store.ReadAttempt(ctx, l.store.DB.Read(), c.BuildID, c.Attempt, "")
	if err != nil {
		return err
	}
	index, err := l.Index(ctx, c.BuildID, c.Attempt, a.LogSize)
	if err != nil {
		return err
	}
	c.blob = fmt.Sprintf("%s%s-%016x%s", logsFolder, store.AttemptName(c.BuildID, c.Attempt), rand.Uint64(), indexedBlob) //nolint:gosec // it only tells tries apart
	c.frames = binary.AppendUvarint(nil, FrameSize)
	return l.blobs.Put(ctx, c.blob, func(w io.Writer) error {
		frame, packed := make([]byte, 0, FrameSize), []byte(nil)
		flush := func() error {
			packed = l.pack.EncodeAll(frame, packed[:0])
			c.frames = binary.AppendUvarint(c.frames, uint64(len(packed)))
			frame = frame[:0]
			_, err := w.Write(packed)
			return err
		}
		for chunk, err := range Pieces(l.Read(ctx, c.BuildID, c.Attempt), 0, a.LogSize) {
			if err != nil {
				return err
			}
			for data := chunk.Data; len(data) > 0; {
				n := min(len(data), FrameSize-len(frame))
				frame, data = append(frame, data[:n]...), data[n:]
				if len(frame) == FrameSize {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
		if len(frame) > 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		return l.writeIndex(w, index)
	})
}

// FrameIndex is where the frames of a blob are.
type FrameIndex struct {
	holds int64   // bytes of the log in each frame but the last
	ends  []int64 // in the blob
}

// ParseFrames reads the index that is kept beside a blob.
func ParseFrames(text []byte) (FrameIndex, error) {
	var all []int64
	for len(text) > 0 {
		value, n := binary.Uvarint(text)
		if n <= 0 {
			return FrameIndex{}, fmt.Errorf("the index of an archived log is broken after %d numbers", len(all))
		}
		all, text = append(all, int64(value)), text[n:] //nolint:gosec // sizes
	}
	if len(all) == 0 || all[0] < 1 {
		return FrameIndex{}, errors.New("the index of an archived log is empty")
	}
	index := FrameIndex{holds: all[0], ends: all[1:]}
	for n := 1; n < len(index.ends); n++ {
		index.ends[n] += index.ends[n-1]
	}
	return index, nil
}

// fromArchive are the next pieces of an archived log that reach beyond an
// offset.
func (l *Service) fromArchive(ctx context.Context, a Archive, offset int64) ([]LogChunk, error) {
	index, err := ParseFrames(a.frames)
	if err != nil {
		return nil, err
	}
	first := offset / index.holds
	after := min(first+pageFrames, int64(len(index.ends)))
	if first >= after {
		return nil, nil
	}
	begin := int64(0)
	if first > 0 {
		begin = index.ends[first-1]
	}
	packed, err := l.readBlob(ctx, a.blob, begin, index.ends[after-1]-begin)
	if err != nil {
		return nil, err
	}
	var chunks []LogChunk
	for n := first; n < after; n++ {
		size := index.ends[n] - begin
		if int64(len(packed)) < size {
			return nil, fault.Newf(fault.Unavailable, "blob %s is shorter than its index says", a.blob)
		}
		data, err := l.unpack.DecodeAll(packed[:size], nil)
		if err != nil {
			return nil, fmt.Errorf("unpack blob %s: %w", a.blob, err)
		}
		chunks = append(chunks, LogChunk{n * index.holds, data})
		packed, begin = packed[size:], index.ends[n]
	}
	return chunks, nil
}

// readBlob is so much of a blob from an offset on; all the rest where length is -1.
func (l *Service) readBlob(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	blob, err := l.blobs.Read(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(blob)
	_ = blob.Close() // all is read, or the error is known
	return data, err
}

// RemoveStrays removes blobs that no row tells of: their writers were killed, or
// somebody else's blob was taken.
func (l *Service) RemoveStrays(ctx context.Context) error {
	removed := 0
	for found, err := range l.blobs.List(ctx, logsFolder) {
		if err != nil {
			return err
		}
		if l.now().Sub(found.Time) < StrayAfter {
			continue
		}
		if known, err := l.knownBlob(ctx, found.Key); err != nil || known {
			if err != nil {
				return err
			}
			continue
		}
		if err := l.blobs.Remove(ctx, found.Key); err != nil {
			return err
		}
		removed++
	}
	if removed > 0 {
		l.log.InfoContext(ctx, "blobs of no log removed", "count", removed)
	}
	return nil
}

// newPacker returns what packs and unpacks frames. Both may be used by several
// at once.
func newPacker() (*zstd.Encoder, *zstd.Decoder, error) {
	pack, err := zstd.NewWriter(nil, zstd.WithWindowSize(FrameSize), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return nil, nil, fmt.Errorf("zstd: %w", err)
	}
	unpack, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, nil, fmt.Errorf("zstd: %w", err)
	}
	return pack, unpack, nil
}
