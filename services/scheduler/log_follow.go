package scheduler

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/logs"
)

// follow sends lines until the build has ended. A line that has not ended is sent
// again once there is more of it.
func (s *logService) follow(ctx context.Context, req *schedulerv1.ReadLogRequest, stream schedulerv1.LogService_ReadLogServer) error {
	number, err := s.service.attemptToWatch(ctx, req.GetBuildId(), req.GetAttempt(), true)
	if err != nil {
		return err
	}
	log := logs.EmptyTail()
	if number > 0 {
		var leave func()
		if log, leave, err = s.service.logs.Follow(ctx, req.GetBuildId(), number); err != nil {
			return err
		}
		defer leave()
	}
	from := &follower{stream: stream, line: req.GetLine(), offset: req.GetOffset()}
	for first := true; ; first = false {
		state := log.Now()
		if state.Err != nil {
			return state.Err
		}
		l := lines{buildID: req.GetBuildId(), attempt: number, read: log.Page(ctx), index: &logs.Index{}, over: state.Over}
		if number > 0 {
			if l.index, err = s.service.logs.Index(ctx, l.buildID, number, state.Size); err != nil {
				return err
			}
			if err := s.addSteps(ctx, &l); err != nil {
				return err
			}
		}
		if first && (from.line > l.index.LineCount()+1 || from.offset > l.index.Size()) {
			return status.Error(codes.OutOfRange, fmt.Sprintf("the log has %d lines in %d bytes", l.index.LineCount(), l.index.Size()))
		}
		if err := from.send(l); err != nil || state.Over {
			return err
		}
		if err := s.more(ctx, state.Changed); err != nil {
			return err
		}
	}
}

// follower is somebody who follows a log: what is sent next begins at the line, or else
// at the offset.
type follower struct {
	stream       schedulerv1.LogService_ReadLogServer
	line, offset int64
}

// send sends what there is by now.
func (f *follower) send(l lines) error {
	b := &batch{stream: f.stream, lines: l, follow: true}
	if f.line > l.index.LineCount() {
		return b.send()
	}
	for found, err := range l.from(f.line, f.offset) {
		if err != nil {
			return err
		}
		if _, err := b.add(found); err != nil {
			return err
		}
		f.line, f.offset = 0, found.Offset
		if !found.Open {
			f.offset += found.Size
		}
	}
	return b.send()
}

// more waits for a change, and for what comes right after it.
func (s *logService) more(ctx context.Context, changed <-chan struct{}) error {
	stops := fault.New(fault.Unavailable, "the scheduler stops: ask again")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-rpc.Stopping(ctx):
		return stops
	case <-changed:
	}
	linger := time.NewTimer(logEvery)
	defer linger.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-rpc.Stopping(ctx):
		return stops
	case <-linger.C:
	}
	return nil
}
