package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/moby/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/forge-ci/forge/services/scheduler/image/gate"
)

// statusWithin is how long BuildKit is asked what becomes of a build. It takes 6 seconds
// to say that it knows none of that name.
const statusWithin = 10 * time.Second

// turn is that of the commands of one build.
type turn struct {
	*job
	bk *bkclient.Client
	// build is what BuildKit calls it; end ends it.
	build string
	end   context.CancelCauseFunc

	mu    sync.Mutex
	place *gate.Place
	left  bool
}

// enter waits until the build may run commands that reach a network.
func (t *turn) enter(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.left:
		return errors.New("the build is over")
	case t.place != nil:
		return nil
	}
	daemon, err := t.daemon(ctx)
	if err != nil {
		return err
	}
	t.place, err = t.request.Gate.Enter(ctx, gate.Arrival{
		BuildKit: daemon, Build: t.build, Tier: t.request.Tier, End: t.end,
		Ended: func(ctx context.Context, build string) (bool, error) { return ended(ctx, t.bk, build) },
		Waits: func() {
			_, _ = io.WriteString(t.log, "forge: image: it waits for the image of another build that is trusted with more or less: what a Dockerfile runs never runs beside that\n") // who reads the log is told why if it is broken
		},
	})
	return err
}

// leave is called once the client has returned from the build. answered: with what
// BuildKit has made of it.
func (t *turn) leave(ctx context.Context, answered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = true
	if t.place != nil {
		t.place.Leave(ctx, answered || t.over.has(t.build))
	}
}

// daemon is the same for all who reach the same BuildKit, in whatever way.
func (t *turn) daemon(ctx context.Context) (string, error) {
	if t.own() {
		found, err := t.config.Docker.Info(ctx, client.InfoOptions{})
		if err != nil {
			return "", fmt.Errorf("identity of the Docker engine: %w", err)
		}
		if found.Info.ID != "" {
			return "docker " + found.Info.ID, nil
		}
	}
	workers, err := t.bk.ListWorkers(ctx)
	if err == nil && len(workers) == 0 {
		err = errors.New("it has no worker")
	}
	if err != nil {
		return "", fmt.Errorf("identity of BuildKit: %w", err)
	}
	return "buildkit " + workers[0].ID, nil
}

// ended reports whether BuildKit has ended a build, or knows of none: it closes the status
// of a build once nothing of it runs any more.
func ended(ctx context.Context, bk *bkclient.Client, build string) (bool, error) {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(statusWithin, cancel).Stop() // a deadline would go to BuildKit, too, whose own error looks like any
	status, err := bk.ControlClient().Status(asking, &controlapi.StatusRequest{Ref: build})
	for err == nil {
		_, err = status.Recv()
	}
	switch {
	// The Docker engine's says the second by the text alone.
	case errors.Is(err, io.EOF), grpcerrors.Code(err) == codes.NotFound, strings.Contains(err.Error(), "no such job "+build):
		return true, nil
	case asking.Err() != nil && ctx.Err() == nil:
		return false, nil
	}
	return false, err
}

// over are builds whose status BuildKit has closed.
type over struct {
	mu     sync.Mutex
	builds map[string]bool
}

func (o *over) has(build string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.builds[build]
}

// watch intercepts calls: who cancels a build is told nothing more by the client, and the
// status goes on until BuildKit has ended it.
func (o *over) watch(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, call grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := call(ctx, desc, conn, method, options...)
	if err != nil || method != controlapi.Control_Status_FullMethodName {
		return stream, err
	}
	return &statusStream{ClientStream: stream, over: o}, nil
}

type statusStream struct {
	grpc.ClientStream

	over  *over
	build string
}

// SendMsg implements grpc.ClientStream.
func (s *statusStream) SendMsg(message any) error {
	if request, ok := message.(*controlapi.StatusRequest); ok {
		s.build = request.GetRef()
	}
	return s.ClientStream.SendMsg(message)
}

// RecvMsg implements grpc.ClientStream.
func (s *statusStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if errors.Is(err, io.EOF) {
		s.over.mu.Lock()
		defer s.over.mu.Unlock()
		s.over.builds[s.build] = true
	}
	return err
}
