package scheduler

import (
	"bytes"
	"context"
	"fmt"
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
	chunkSize = 192 << 10
	// maxOutput is what one report may bring.
	maxOutput = 64 << 10
	// compressFrom is the size at which compressing a chunk pays.
	compressFrom = 512
	// pageChunks bounds what one read of the store brings.
	pageChunks = 8
)

// addLogChunk stores a piece of the log that begins at the position.
func (t *tx) addLogChunk(ctx context.Context, a *attempt, position int64, data []byte) error {
	stored, compressed := data, false
	if len(data) >= compressFrom {
		if packed := s2.Encode(nil, data); len(packed) < len(data) {
			stored, compressed = packed, true
		}
	}
	t.news.topics = append(t.news.topics, logTopic(a.buildID))
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

// WatchLog sends a build's log.
func (s *Service) WatchLog(req *schedulerv1.WatchLogRequest, stream schedulerv1.BuildService_WatchLogServer) error {
	ctx := stream.Context()
	if req.GetOffset() < 0 {
		return fault.New(fault.Invalid, "an offset counts from 0")
	}
	// The build's changes too: before the first attempt there is no log to change.
	changed, leave := s.hub.subscribe(logTopic(req.GetBuildId()), buildTopic(req.GetBuildId()))
	defer leave()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	number, offset := req.GetAttempt(), req.GetOffset()
	for first := true; ; first = false {
		size, over, err := s.logState(ctx, req.GetBuildId(), &number)
		if err != nil {
			return err
		}
		if first && size == 0 && s.pruned(ctx, req.GetBuildId()) {
			return fault.Newf(fault.NotFound, "the log is gone: logs are kept for %v after the end of a build", s.LogRetention)
		}
		if first && offset > size {
			return status.Error(codes.OutOfRange, fmt.Sprintf("offset %d lies past the end of what was printed, %d bytes", offset, size))
		}
		if offset, err = s.sendLog(ctx, stream, req.GetBuildId(), number, offset, size); err != nil {
			return err
		}
		if over || !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
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

// logState says how long the log of an attempt is, and whether that is all of
// it. Number 0 becomes the latest attempt once there is one.
func (s *Service) logState(ctx context.Context, buildID string, number *int32) (size int64, over bool, err error) {
	b, err := readBuild(ctx, s.store.db.Read(), buildID, "")
	if err != nil {
		return 0, false, err
	}
	if *number == 0 {
		*number = b.GetAttempt()
	}
	if *number == 0 {
		return 0, ended(b.GetState()), nil
	}
	a, err := readAttempt(ctx, s.store.db.Read(), buildID, *number, "")
	if err != nil {
		return 0, false, err
	}
	return a.logSize, a.ended, nil
}

// sendLog sends what lies between offset and size, and returns where it ended.
func (s *Service) sendLog(ctx context.Context, stream schedulerv1.BuildService_WatchLogServer, buildID string, number int32, offset, size int64) (int64, error) {
	for offset < size {
		chunks, err := s.store.logFrom(ctx, buildID, number, offset)
		if err != nil {
			return offset, err
		}
		sent := offset
		for _, c := range chunks {
			if skip := offset - c.position; skip < int64(len(c.data)) {
				if err := stream.Send(&schedulerv1.WatchLogResponse{Data: c.data[max(skip, 0):], Offset: offset}); err != nil {
					return offset, err
				}
				offset = c.position + int64(len(c.data))
			}
		}
		if offset == sent {
			return offset, fmt.Errorf("log of %s: nothing at %d of %d bytes", attemptName(buildID, number), offset, size)
		}
	}
	return offset, nil
}
