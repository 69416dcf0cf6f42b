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

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

type logs struct {
	settings.GRPC
	Build   string `arg:"" help:"The build, as the end of its page's address names it; of a job BUILD/JOB, such as 7k2…/lint."`
	Follow  bool   `short:"f" help:"Go on until the build has ended."`
	Tail    int32  `short:"n" placeholder:"LINES" help:"Begin so many lines before the end."`
	Attempt int32  `placeholder:"N" help:"Another attempt than the latest."`
}

// Run prints the log of a build as its commands wrote it. Whoever knows a build
// may read it, so no token is asked for.
func (l logs) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := rpc.Dial(l.GRPCAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	client := schedulerv1.NewBuildServiceClient(conn)
	id, err := logOf(ctx, client, l.Build)
	if _, said := status.FromError(err); !said {
		return err
	}
	if err != nil {
		return from(l.GRPCAddress, err)
	}
	err = printLog(ctx, os.Stdout, client, &schedulerv1.WatchLogRequest{
		BuildId: id, Attempt: l.Attempt, Follow: l.Follow, TailLines: l.Tail,
	})
	if err != nil && ctx.Err() == nil {
		return from(l.GRPCAddress, err)
	}
	return nil
}

// A follower outlives a restart of Forge.
const (
	followRetry    = time.Second
	followPatience = time.Minute
)

// printLog writes a log, and goes on where it was cut off.
func printLog(ctx context.Context, out io.Writer, builds schedulerv1.BuildServiceClient, req *schedulerv1.WatchLogRequest) error {
	for heard := time.Now(); ; {
		stream, err := builds.WatchLog(ctx, req)
		for err == nil {
			var part *schedulerv1.WatchLogResponse
			if part, err = stream.Recv(); err != nil {
				break
			}
			heard = time.Now()
			if _, err := out.Write(part.GetData()); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			req.Offset, req.TailLines = part.GetOffset()+int64(len(part.GetData())), 0
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if !req.GetFollow() || status.Code(err) != codes.Unavailable || time.Since(heard) > followPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followRetry):
		}
	}
}
