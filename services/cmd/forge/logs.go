package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type logs struct {
	query
	Build   string `arg:"" help:"The build, as the end of its page's address names it; of a job BUILD/JOB, such as 7k2…/lint."`
	Follow  bool   `short:"f" help:"Go on until the build has ended, and end as it did: with 0 where it passed, else with 1."`
	Tail    int32  `short:"n" placeholder:"LINES" help:"Begin so many lines before the end."`
	Attempt int32  `placeholder:"N" help:"Another attempt than the latest."`
}

// Run prints the log of a build as its commands wrote it. Whoever knows a build
// may read it, so no token is asked for.
func (l logs) Run() error {
	return untilInterrupted(func(ctx context.Context) error {
		return l.session(ctx, false, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			client := schedulerv1.NewBuildServiceClient(conn)
			id, err := logOf(ctx, client, l.Build)
			if err != nil {
				return err
			}
			show := func(part *schedulerv1.WatchLogResponse) error {
				if l.json() {
					return l.printLine(part)
				}
				_, err := os.Stdout.Write(part.GetData())
				return err
			}
			err = printLog(ctx, show, client, &schedulerv1.WatchLogRequest{BuildId: id, Attempt: l.Attempt, Follow: l.Follow, TailLines: l.Tail})
			if err != nil || !l.Follow {
				return err
			}
			answer, err := client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
			if err != nil {
				return err
			}
			return verdict(answer.GetBuild())
		})
	})
}

// errInterrupted is that somebody pressed Ctrl-C.
var errInterrupted = errors.New("interrupted")

// untilInterrupted calls with a context that Ctrl-C and SIGTERM end.
func untilInterrupted(do func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := do(ctx)
	if ctx.Err() != nil && err != nil {
		return codedError{exitInterrupted, errInterrupted}
	}
	return err
}

// verdict is nil where a build passed.
func verdict(b *schedulerv1.Build) error {
	if b.GetState() == schedulerv1.Build_STATE_PASSED {
		return nil
	}
	return codedError{exitFailed, fmt.Errorf("build %s %s", b.GetId(), stateLine(b))}
}

// A follower outlives a restart of Forge.
const (
	followRetry    = time.Second
	followPatience = time.Minute
)

// printLog shows a log, and goes on where it was cut off.
func printLog(ctx context.Context, show func(*schedulerv1.WatchLogResponse) error, builds schedulerv1.BuildServiceClient, req *schedulerv1.WatchLogRequest) error {
	return resumed(ctx, req.GetFollow(), func(heard func()) error {
		stream, err := builds.WatchLog(ctx, req)
		for err == nil {
			var part *schedulerv1.WatchLogResponse
			if part, err = stream.Recv(); err != nil {
				break
			}
			heard()
			if err := show(part); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			req.Offset, req.TailLines = part.GetOffset()+int64(len(part.GetData())), 0
		}
		return err
	})
}

// resumed calls watch until it has come to an end, again where Forge was away for less
// than followPatience since watch heard of it last.
func resumed(ctx context.Context, again bool, watch func(heard func()) error) error {
	last := time.Now()
	for {
		err := watch(func() { last = time.Now() })
		if err == nil || errors.Is(err, io.EOF) {
			return nil
		}
		if !again || status.Code(err) != codes.Unavailable || time.Since(last) > followPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followRetry):
		}
	}
}
