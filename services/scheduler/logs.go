package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	// chunkSize is where a chunk of the log is cut; one report may reach over it.
	chunkSize = 191 << 10
	// maxOutput is what one report may bring.
	maxOutput = 64 << 10
	// compressFrom is the size at which compressing a chunk pays.
	compressFrom = 512
	// pageChunks bounds what one read of the store brings.
	pageChunks = 8
)

// addLogChunk stores a piece of the log that begins at the position, and keeps data.
func (t *tx) addLogChunk(ctx context.Context, a *attempt, position int64, data []byte) error {
	stored, compressed := data, false
	if len(data) >= compressFrom {
		if packed := s2.Encode(nil, data); len(packed) < len(data) {
			stored, compressed = packed, true
		}
	}
	t.news.printed = append(t.news.printed, addition{a.name(), logChunk{position, data}})
	return t.exec(ctx, `INSERT INTO log_chunks (build_id, attempt, position, size, compressed, data) VALUES ($1, $2, $3, $4, $5, $6)`,
		a.buildID, a.number, position, len(data), compressed, stored)
}

const (
	// overLimit is what a runner may say beyond the limit: it keeps it itself, with
	// a few KiB for each of 500 steps whatever those before it printed.
	overLimit = 8 << 20
	limitNote = "\nforge: the log has reached its limit; the rest is left out\n"
)

// admitted is what is stored of output at a position of the log: all of it, but
// for runners that do not keep the limit.
func (s *Service) admitted(position int64, data []byte) []byte {
	switch room := s.LogLimit + overLimit - position; {
	case s.LogLimit == 0, room >= int64(len(data)):
		return data
	case room >= 0: // later there is less than no room, since this is said
		return append(bytes.Clone(data[:room]), limitNote...)
	default:
		return nil
	}
}

// logChunk is a piece of the log.
type logChunk struct {
	position int64
	data     []byte
}

func scanLogChunk(row scanner) (logChunk, error) {
	var c logChunk
	var compressed bool
	err := row.Scan(&c.position, &compressed, &c.data)
	if err == nil && compressed {
		c.data, err = s2.Decode(nil, c.data)
	}
	return c, err
}

// logFrom are the next chunks that reach beyond an offset.
func (s *store) logFrom(ctx context.Context, buildID string, number int32, offset int64) ([]logChunk, error) {
	chunks, err := collect(ctx, s.db.Read(), scanLogChunk, `SELECT position, compressed, data FROM log_chunks
		WHERE build_id = $1 AND attempt = $2 AND position >= COALESCE((SELECT max(position) FROM log_chunks
			WHERE build_id = $1 AND attempt = $2 AND position <= $3), 0)
		ORDER BY position LIMIT $4`, buildID, number, offset, pageChunks)
	return chunks, sqldb.Kind(err)
}

// page is the next pieces of a log that reach beyond an offset; none where the
// log is gone.
type page func(offset int64) ([]logChunk, error)

// pages reads a log wherever it is.
func (s *Service) pages(ctx context.Context, buildID string, number int32) page {
	return func(offset int64) ([]logChunk, error) {
		chunks, err := s.store.logFrom(ctx, buildID, number, offset)
		if err != nil || len(chunks) > 0 && chunks[0].position <= offset {
			return chunks, err
		}
		// Chunks go once the blob is known, those at the beginning first.
		a, moved, err := s.store.archived(ctx, buildID, number)
		if err != nil || !moved {
			return nil, err
		}
		return s.fromArchive(ctx, a, offset)
	}
}

// pieces are what lies from begin to end.
func pieces(read page, begin, end int64) iter.Seq2[logChunk, error] {
	return func(yield func(logChunk, error) bool) {
		for at := begin; at < end; {
			chunks, err := read(at)
			if err == nil && len(chunks) == 0 {
				err = fault.New(fault.NotFound, "the log is gone")
			}
			if err != nil {
				yield(logChunk{}, err)
				return
			}
			for _, c := range chunks {
				from, to := at-c.position, min(end-c.position, int64(len(c.data)))
				switch {
				case from >= to: // before what is asked for, or after it
					continue
				case from < 0:
					yield(logChunk{}, fmt.Errorf("a log has a hole from %d to %d", at, c.position))
					return
				}
				if !yield(logChunk{at, c.data[from:to]}, nil) {
					return
				}
				at = c.position + to
			}
		}
	}
}

// WatchLog sends a build's log.
func (s *Service) WatchLog(req *schedulerv1.WatchLogRequest, stream schedulerv1.BuildService_WatchLogServer) error {
	ctx := stream.Context()
	tail := req.GetTailBytes() > 0 || req.GetTailLines() > 0
	switch {
	case req.GetOffset() < 0 || req.GetTailBytes() < 0 || req.GetTailLines() < 0:
		return fault.New(fault.Invalid, "offsets, bytes and lines count from 0")
	case tail && req.GetOffset() > 0:
		return fault.New(fault.Invalid, "begin at an offset or before the end, not both")
	}
	number, err := s.attemptToWatch(ctx, req)
	if err != nil {
		return err
	}
	var log *feed
	if number == 0 {
		log = &feed{state: feedState{over: true}} // nothing was ever printed
	} else {
		var leave func()
		if log, leave, err = s.feeds.join(ctx, req.GetBuildId(), number); err != nil {
			return err
		}
		defer leave()
	}
	state := log.now()
	offset := req.GetOffset()
	switch {
	case state.size == 0 && s.pruned(ctx, req.GetBuildId()):
		return fault.Newf(fault.NotFound, "the log is gone: logs are kept for %v after the end of a build", s.LogRetention)
	case offset > state.size:
		return status.Error(codes.OutOfRange, fmt.Sprintf("offset %d lies past the end of what was printed, %d bytes", offset, state.size))
	case tail:
		if offset, err = tailStart(log.page(ctx), state.size, req.GetTailBytes(), int(req.GetTailLines())); err != nil {
			return err
		}
	}
	for {
		if state.err != nil {
			return state.err
		}
		for piece, err := range pieces(log.page(ctx), offset, state.size) {
			if err == nil {
				err = stream.Send(&schedulerv1.WatchLogResponse{Data: piece.data, Offset: piece.position})
			}
			if err != nil {
				return err
			}
			offset = piece.position + int64(len(piece.data))
		}
		if state.over || !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-state.changed:
		}
		state = log.now()
	}
}

// attemptToWatch is the attempt asked for, or else the latest. Before the first
// it waits for one, where the log is to be followed; 0: there is none.
func (s *Service) attemptToWatch(ctx context.Context, req *schedulerv1.WatchLogRequest) (int32, error) {
	changed, leave := s.hub.subscribe(buildTopic(req.GetBuildId()))
	defer leave()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		b, err := readBuild(ctx, s.store.db.Read(), req.GetBuildId(), "")
		if err != nil {
			return 0, err
		}
		number := cmp.Or(req.GetAttempt(), b.GetAttempt())
		if number != 0 || ended(b.GetState()) || !req.GetFollow() {
			return number, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-rpc.Stopping(ctx):
			return 0, fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-changed:
		case <-poll.C:
		}
	}
}

// pruned reports whether a build is so old that its log was, or is being, removed.
func (s *Service) pruned(ctx context.Context, buildID string) bool {
	b, err := readBuild(ctx, s.store.db.Read(), buildID, "")
	return err == nil && s.LogRetention > 0 && b.GetEndTime() != nil && s.Now().Sub(b.GetEndTime().AsTime()) >= s.LogRetention
}

// maxTail is how much is searched for the beginning of the last lines.
const maxTail = 1 << 20

// tailStart is where the last so many bytes, or lines, of a log begin, whichever
// is later; 0 is no bound.
func tailStart(read page, size, tailBytes int64, lines int) (int64, error) {
	begin := int64(0)
	if tailBytes > 0 {
		begin = max(0, size-tailBytes)
	}
	if lines == 0 {
		return begin, nil
	}
	begin = max(begin, size-maxTail)
	var text []byte
	for piece, err := range pieces(read, begin, size) {
		if err != nil {
			return 0, err
		}
		text = append(text, piece.data...)
	}
	at := len(text)
	for ; lines > 0 && at > 0; lines-- {
		at = bytes.LastIndexByte(text[:at-1], '\n') + 1
	}
	return begin + int64(at), nil
}
