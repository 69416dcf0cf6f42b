package logs

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// ChunkSize is where a chunk of the log is cut; one report may reach over it.
	ChunkSize = 191 << 10
	// MaxOutput is what one report may bring.
	MaxOutput = 64 << 10
	// CompressFrom is the size at which compressing a chunk pays.
	CompressFrom = 512
	// pageChunks bounds what one read of the store brings.
	pageChunks = 8
)

// Service keeps what builds print.
type Service struct {
	store *store.Store
	blobs *blobs.Store
	// Limit is how many bytes the log of an attempt may have, but for the runner's
	// words; 0 is no limit.
	Limit     int64
	now       func() time.Time
	log       *slog.Logger
	Tails     *tails
	indexes   *indexes
	searching chan struct{} // holds one for each search that runs
	pack      *zstd.Encoder
	unpack    *zstd.Decoder
	// Archives moves the logs of what has ended into blobs, and removes old ones.
	Archives *due.Loop[Archive]
}

// Deps is what the logs need.
type Deps struct {
	Store *store.Store
	Blobs *blobs.Store
	Limit int64
	Log   *slog.Logger
}

// New returns what keeps logs; Run makes it move those of what has ended.
func New(d Deps) (*Service, error) {
	l := &Service{store: d.Store, blobs: d.Blobs, Limit: d.Limit, now: d.Store.Now, log: d.Log}
	l.searching = make(chan struct{}, searches)
	l.Tails = &tails{notifier: d.Store.Notifier, Look: l.lookAtLog, lookAll: l.lookAtLogs, Pages: l.Read, Live: map[string]*Tail{}}
	var err error
	if l.pack, l.unpack, err = newPacker(); err != nil {
		return nil, err
	}
	if l.indexes, err = newIndexes(); err != nil {
		return nil, err
	}
	l.Archives = &due.Loop[Archive]{Name: "archives", Workers: 2, Poll: ArchiveAfter, Log: d.Log, Claim: l.claimArchives, Renew: l.renewArchive, Work: l.archiveLog}
	return l, nil
}

// Run moves logs into blobs until ctx ends, and looks for what other replicas
// store of those that are followed here. A SQLite file has no other.
func (l *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.Archives.Run(ctx) })
	if l.store.DB.Dialect != sqldb.SQLite {
		group.Go(func() error { return l.Tails.followOthers(ctx, l.log) })
	}
	return group.Wait()
}

// Wake has the logs that are due to be moved or removed looked at.
func (l *Service) Wake() { l.Archives.Wake() }

// Append stores a piece of the log that begins at the position, and keeps data.
func (l *Service) Append(ctx context.Context, t *store.Tx, a *store.Attempt, position int64, data []byte, notes Notes) error {
	stored, compressed := data, false
	if len(data) >= CompressFrom {
		if packed := s2.Encode(nil, data); len(packed) < len(data) {
			stored, compressed = packed, true
		}
	}
	t.OnCommit(func() { l.Tails.printed(addition{a.Name(), LogChunk{position, data}}) })
	err := t.Exec(ctx, `INSERT INTO log_chunks (build_id, attempt, position, size, compressed, data) VALUES ($1, $2, $3, $4, $5, $6)`,
		a.BuildID, a.Number, position, len(data), compressed, stored)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO log_lines (build_id, attempt, position, pieces) VALUES ($1, $2, $3, $4)`,
		a.BuildID, a.Number, position, encodePieces(summarize(position, data, notes)))
}

const (
	// OverLimit is what a runner may say beyond the limit: it keeps it itself, with
	// a few KiB for each of 500 steps whatever those before it printed.
	OverLimit = 8 << 20
	// LimitNote ends a log that has reached its limit.
	LimitNote = "\nforge: the log has reached its limit; the rest is left out\n"
)

// Admitted is what is stored of output at a position of the log: all of it, but
// for runners that do not keep the limit.
func (l *Service) Admitted(position int64, data []byte) []byte {
	switch room := l.Limit + OverLimit - position; {
	case l.Limit == 0, room >= int64(len(data)):
		return data
	case room >= 0: // later there is less than no room, since this is said
		return append(bytes.Clone(data[:room]), LimitNote...)
	default:
		return nil
	}
}

// LogChunk is a piece of the log.
type LogChunk struct {
	Position int64
	Data     []byte
}

func scanLogChunk(row sqldb.Row) (LogChunk, error) {
	var c LogChunk
	var compressed bool
	err := row.Scan(&c.Position, &compressed, &c.Data)
	if err == nil && compressed {
		c.Data, err = s2.Decode(nil, c.Data)
	}
	return c, err
}

// logFrom are the next chunks that reach beyond an offset.
func (l *Service) logFrom(ctx context.Context, buildID string, number int32, offset int64) ([]LogChunk, error) {
	chunks, err := sqldb.Collect(ctx, l.store.DB.Read(), scanLogChunk, `SELECT position, compressed, data FROM log_chunks
		WHERE build_id = $1 AND attempt = $2 AND position >= COALESCE((SELECT max(position) FROM log_chunks
			WHERE build_id = $1 AND attempt = $2 AND position <= $3), 0)
		ORDER BY position LIMIT $4`, buildID, number, offset, pageChunks)
	return chunks, sqldb.Kind(err)
}

// Page is the next pieces of a log that reach beyond an offset; none where the
// log is gone.
type Page func(offset int64) ([]LogChunk, error)

// Read reads a log wherever it is.
func (l *Service) Read(ctx context.Context, buildID string, number int32) Page {
	return func(offset int64) ([]LogChunk, error) {
		chunks, err := l.logFrom(ctx, buildID, number, offset)
		if err != nil || len(chunks) > 0 && chunks[0].Position <= offset {
			return chunks, err
		}
		// Chunks go once the blob is known, those at the beginning first.
		a, moved, err := l.archived(ctx, buildID, number)
		if err != nil || !moved {
			return nil, err
		}
		return l.fromArchive(ctx, a, offset)
	}
}

// Pieces are what lies from begin to end.
func Pieces(read Page, begin, end int64) iter.Seq2[LogChunk, error] {
	return func(yield func(LogChunk, error) bool) {
		for at := begin; at < end; {
			chunks, err := read(at)
			if err == nil && len(chunks) == 0 {
				err = fault.New(fault.NotFound, "the log is gone")
			}
			if err != nil {
				yield(LogChunk{}, err)
				return
			}
			for _, c := range chunks {
				from, to := at-c.Position, min(end-c.Position, int64(len(c.Data)))
				switch {
				case from >= to: // before what is asked for, or after it
					continue
				case from < 0:
					yield(LogChunk{}, fmt.Errorf("a log has a hole from %d to %d", at, c.Position))
					return
				}
				if !yield(LogChunk{at, c.Data[from:to]}, nil) {
					return
				}
				at = c.Position + to
			}
		}
	}
}

// MaxTail is how much is searched for the beginning of the last lines.
const MaxTail = 1 << 20

// TailStart is where the last so many bytes, or lines, of a log begin, whichever
// is later; 0 is no bound.
func TailStart(read Page, size, tailBytes int64, lines int) (int64, error) {
	begin := int64(0)
	if tailBytes > 0 {
		begin = max(0, size-tailBytes)
	}
	if lines == 0 {
		return begin, nil
	}
	begin = max(begin, size-MaxTail)
	var text []byte
	for piece, err := range Pieces(read, begin, size) {
		if err != nil {
			return 0, err
		}
		text = append(text, piece.Data...)
	}
	at := len(text)
	for ; lines > 0 && at > 0; lines-- {
		at = bytes.LastIndexByte(text[:at-1], '\n') + 1
	}
	return begin + int64(at), nil
}
