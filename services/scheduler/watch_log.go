package scheduler

import (
	"cmp"
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// WatchLog sends a build's log.
func (s *Service) WatchLog(req *schedulerv1.WatchLogRequest, stream schedulerv1.BuildService_WatchLogServer) error {
	ctx := stream.Context()
	fromEnd := req.GetTailBytes() > 0 || req.GetTailLines() > 0
	switch {
	case req.GetOffset() < 0 || req.GetTailBytes() < 0 || req.GetTailLines() < 0:
		return fault.New(fault.Invalid, "offsets, bytes and lines count from 0")
	case fromEnd && req.GetOffset() > 0:
		return fault.New(fault.Invalid, "begin at an offset or before the end, not both")
	}
	number, err := s.attemptToWatch(ctx, req.GetBuildId(), req.GetAttempt(), req.GetFollow())
	if err != nil {
		return err
	}
	var log *logs.Tail
	if number == 0 {
		log = logs.EmptyTail() // nothing was ever printed
	} else {
		var leave func()
		if log, leave, err = s.logs.Follow(ctx, req.GetBuildId(), number); err != nil {
			return err
		}
		defer leave()
	}
	state := log.Now()
	offset := req.GetOffset()
	switch {
	case state.Size == 0 && s.pruned(ctx, req.GetBuildId()):
		return s.logGone()
	case offset > state.Size:
		return status.Error(codes.OutOfRange, fmt.Sprintf("offset %d lies past the end of what was printed, %d bytes", offset, state.Size))
	case fromEnd:
		if offset, err = logs.TailStart(log.Page(ctx), state.Size, req.GetTailBytes(), int(req.GetTailLines())); err != nil {
			return err
		}
	}
	for {
		if state.Err != nil {
			return state.Err
		}
		for piece, err := range logs.Pieces(log.Page(ctx), offset, state.Size) {
			if err == nil {
				err = stream.Send(&schedulerv1.WatchLogResponse{Data: piece.Data, Offset: piece.Position})
			}
			if err != nil {
				return err
			}
			offset = piece.Position + int64(len(piece.Data))
		}
		if state.Over || !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-state.Changed:
		}
		state = log.Now()
	}
}

// attemptToWatch is the attempt asked for, or else the latest. Before the first
// it waits for one, where the log is to be followed; 0: there is none.
func (s *Service) attemptToWatch(ctx context.Context, buildID string, attempt int32, follow bool) (int32, error) {
	changed, leave := s.store.Notifier.Subscribe(store.BuildTopic(buildID))
	defer leave()
	anyway := store.LookAnyway()
	defer anyway.Stop()
	for {
		b, err := store.ReadBuild(ctx, s.store.DB.Read(), buildID, "")
		if err != nil {
			return 0, err
		}
		if b.HasJobs() {
			return 0, fault.Newf(fault.Conflict, "build %s has jobs, each with a log of its own: ask for one of them, such as %s", b.GetId(), store.JobID(b.GetId(), 1))
		}
		number := cmp.Or(attempt, b.GetAttempt())
		if number != 0 || store.Ended(b.GetState()) || !follow {
			return number, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-rpc.Stopping(ctx):
			return 0, fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-changed:
		case <-anyway.C:
		}
	}
}

func (s *Service) logGone() error {
	return fault.Newf(fault.NotFound, "the log is gone: logs are kept for %v after the end of a build", s.deps.Retention.Logs)
}

// pruned reports whether a build is so old that its log was, or is being, removed.
func (s *Service) pruned(ctx context.Context, buildID string) bool {
	b, err := store.ReadBuild(ctx, s.store.DB.Read(), buildID, "")
	return err == nil && s.deps.Retention.Logs > 0 && b.GetEndTime() != nil && s.deps.Now().Sub(b.GetEndTime().AsTime()) >= s.deps.Retention.Logs
}
