package logs

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// indexesKept bounds the indexes in memory; that of 200 MB takes about 1 MB.
	indexesKept = 32
	// indexedBlob ends the keys of blobs that hold an index after the log.
	indexedBlob = ".lines.zst"
	// indexFrame begins a frame that zstd skips.
	indexFrame = 0x184D2A50
	pageRows   = 4096
)

// indexes are those in use, by the name of the attempt.
type indexes struct {
	kept *lru.Cache[string, *kept]
}

// kept is an index and whose turn it is to make it grow.
type kept struct {
	turn  sync.Mutex
	index *Index
}

func newIndexes() (*indexes, error) {
	cache, err := lru.New[string, *kept](indexesKept)
	if err != nil {
		return nil, fmt.Errorf("indexes of logs: %w", err)
	}
	return &indexes{cache}, nil
}

func (i *indexes) of(name string) *kept {
	fresh := &kept{index: &Index{}}
	if known, found, _ := i.kept.PeekOrAdd(name, fresh); found {
		i.kept.Get(name) // which was used just now
		return known
	}
	return fresh
}

// Index returns where the lines of an attempt's log are, as far as a size at least.
// What is not known of them is found by reading the log through, once.
func (l *Service) Index(ctx context.Context, buildID string, number int32, size int64) (*Index, error) {
	entry := l.indexes.of(store.AttemptName(buildID, number))
	entry.turn.Lock()
	defer entry.turn.Unlock()
	if entry.index.Size() >= size {
		return entry.index, nil
	}
	a, moved, err := l.archived(ctx, buildID, number)
	if err != nil {
		return nil, err
	}
	if moved && strings.HasSuffix(a.blob, indexedBlob) {
		found, err := l.readIndex(ctx, a)
		if err != nil {
			return nil, err
		}
		if found.Size() >= size {
			entry.index = found
			return found, nil
		}
	}
	if err := l.growIndex(ctx, entry.index, buildID, number, size); err != nil {
		return nil, fmt.Errorf("index of log %s: %w", store.AttemptName(buildID, number), err)
	}
	return entry.index, nil
}

// growIndex adds to an index what is stored of the lines beyond it, or else what
// they are themselves.
func (l *Service) growIndex(ctx context.Context, x *Index, buildID string, number int32, size int64) error {
	for x.Size() < size {
		rows, err := l.linesFrom(ctx, buildID, number, x.Size())
		if err != nil {
			return err
		}
		// Read after the rows, so that no row is of a step that is missing here.
		steps, err := l.stepOffsets(ctx, buildID, number)
		if err != nil {
			return err
		}
		before := x.Size()
		for _, row := range rows {
			if row.position != x.Size() {
				break
			}
			for _, p := range row.pieces {
				_, begins := slices.BinarySearch(steps, x.Size())
				p.step = p.step || begins
				x.add(p)
			}
		}
		if x.Size() > before {
			continue
		}
		until := size
		if len(rows) > 0 && rows[0].position > before {
			until = min(until, rows[0].position)
		}
		for chunk, err := range Pieces(l.Read(ctx, buildID, number), before, until) {
			if err != nil {
				return err
			}
			for _, p := range summarize(chunk.Position, chunk.Data, Notes{Steps: steps}) {
				x.add(p)
			}
		}
	}
	return nil
}

// lineRow is what is stored of the lines of a chunk.
type lineRow struct {
	position int64
	pieces   []piece
}

func scanLineRow(row sqldb.Row) (lineRow, error) {
	var found lineRow
	var text []byte
	if err := row.Scan(&found.position, &text); err != nil {
		return lineRow{}, err
	}
	// What cannot be read is as good as not there.
	found.pieces, _ = parsePieces(text)
	return found, nil
}

func (l *Service) linesFrom(ctx context.Context, buildID string, number int32, position int64) ([]lineRow, error) {
	rows, err := sqldb.Collect(ctx, l.store.DB.Read(), scanLineRow, `SELECT position, pieces FROM log_lines
		WHERE build_id = $1 AND attempt = $2 AND position >= $3 ORDER BY position LIMIT $4`, buildID, number, position, pageRows)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	for n := range rows {
		if rows[n].pieces == nil {
			return rows[:n], nil
		}
	}
	return rows, nil
}

// stepOffsets are where in the log steps begin, in order.
func (l *Service) stepOffsets(ctx context.Context, buildID string, number int32) ([]int64, error) {
	begun, err := store.BegunSteps(ctx, l.store.DB.Read(), buildID, number)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	var all []int64
	for _, step := range begun {
		all = append(all, step.GetLogOffset())
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// writeIndex writes an index behind the frames of a log, as a frame that zstd skips.
func (l *Service) writeIndex(w io.Writer, x *Index) error {
	packed := l.pack.EncodeAll(encodePieces(x.all()), nil)
	header := binary.LittleEndian.AppendUint32(nil, indexFrame)
	header = binary.LittleEndian.AppendUint32(header, uint32(len(packed))) //nolint:gosec // far from it
	_, err := w.Write(append(header, packed...))
	return err
}

// readIndex reads the index behind a log. One that is broken is an empty one.
func (l *Service) readIndex(ctx context.Context, a Archive) (*Index, error) {
	x := &Index{}
	frames, err := ParseFrames(a.frames)
	if err != nil {
		return nil, err
	}
	begin := int64(0)
	if n := len(frames.ends); n > 0 {
		begin = frames.ends[n-1]
	}
	text, err := l.readBlob(ctx, a.blob, begin, -1)
	if err != nil {
		return nil, err
	}
	if len(text) < 8 || binary.LittleEndian.Uint32(text) != indexFrame {
		return x, nil
	}
	pieces, err := l.unpack.DecodeAll(text[8:], nil)
	if err == nil {
		var all []piece
		all, err = parsePieces(pieces)
		for _, p := range all {
			x.add(p)
		}
	}
	if err != nil {
		l.log.WarnContext(ctx, "index of a log not read; the log is read through in its place", "blob", a.blob, "error", err)
		return &Index{}, nil
	}
	return x, nil
}
