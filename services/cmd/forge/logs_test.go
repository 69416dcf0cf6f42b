package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// cutting is a scheduler that is stopped after each piece of a log.
type cutting struct {
	schedulerv1.UnimplementedBuildServiceServer
	log  string
	reqs []*schedulerv1.WatchLogRequest
}

func (c *cutting) WatchLog(req *schedulerv1.WatchLogRequest, stream schedulerv1.BuildService_WatchLogServer) error {
	c.reqs = append(c.reqs, req)
	if req.GetBuildId() != "known" {
		return status.Error(codes.NotFound, "there is no build "+req.GetBuildId())
	}
	at := req.GetOffset()
	if req.GetTailLines() > 0 {
		at = 4
	}
	if at == int64(len(c.log)) {
		return nil
	}
	if err := stream.Send(&schedulerv1.WatchLogResponse{Data: []byte(c.log[at : at+2]), Offset: at}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the scheduler stops: ask again")
}

func TestLogsArePrintedAcrossRestarts(t *testing.T) {
	fake := &cutting{log: "abcdefgh"}
	pipe := rpc.NewPipe()
	server := rpc.NewServer(rpc.Config{Name: "scheduler", Access: map[string]rpc.Access{
		schedulerv1.BuildService_WatchLog_FullMethodName: {Public: true},
	}})
	schedulerv1.RegisterBuildServiceServer(server, fake)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	conn, err := pipe.Dial("", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	builds := schedulerv1.NewBuildServiceClient(conn)

	var out bytes.Buffer
	err = printLog(t.Context(), into(&out), builds, &schedulerv1.WatchLogRequest{BuildId: "known", Follow: true, TailLines: 3})
	if err != nil || out.String() != "efgh" || len(fake.reqs) != 3 {
		t.Errorf("followed %q in %d calls, %v", out.String(), len(fake.reqs), err)
	}
	out.Reset()
	err = printLog(t.Context(), into(&out), builds, &schedulerv1.WatchLogRequest{BuildId: "known"})
	if status.Code(err) != codes.Unavailable || out.String() != "ab" {
		t.Errorf("printed %q, %v", out.String(), err)
	}
	if err = printLog(t.Context(), into(&out), builds, &schedulerv1.WatchLogRequest{BuildId: "other", Follow: true}); status.Code(err) != codes.NotFound {
		t.Errorf("a build that is not known: %v", err)
	}
	err = printLog(t.Context(), into(full{}), builds, &schedulerv1.WatchLogRequest{BuildId: "known", Follow: true})
	if !errors.Is(err, errFull) {
		t.Errorf("nowhere to print to: %v", err)
	}
}

func into(out io.Writer) func(*schedulerv1.WatchLogResponse) error {
	return func(part *schedulerv1.WatchLogResponse) error {
		_, err := out.Write(part.GetData())
		return err
	}
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
