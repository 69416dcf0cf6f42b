package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// lastWords is how long streams of gRPC's own services go on when the server stops.
const lastWords = 100 * time.Millisecond

// Stopping is closed when the server that a call came to begins to stop. The
// handler of a stream without an end of its own returns then, or it is cut off
// after the grace period.
func Stopping(ctx context.Context) <-chan struct{} {
	if s, ok := ctx.Value(serverKey{}).(*Server); ok {
		return s.stopping.Done()
	}
	return nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.Deadline)
		defer cancel()
	}
	var resp any
	err := s.handle(ctx, info.FullMethod, func(ctx context.Context) (err error) {
		resp, err = handler(ctx, req)
		return err
	})
	return resp, err
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if builtin(info.FullMethod) {
		// A health watch has no end of its own and knows no Stopping; it is to say
		// NOT_SERVING before it ends.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.stopping, func() { time.AfterFunc(lastWords, cancel) })()
	}
	return s.handle(ctx, info.FullMethod, func(ctx context.Context) error {
		return handler(srv, &serverStream{ss, ctx})
	})
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // Context() is where gRPC asks a stream for it
}

func (s *serverStream) Context() context.Context { return s.ctx }

// handle is what every call goes through. What it needs at the end alone stands in
// conclude, since its frame lies on the stack of each stream that is silent for hours.
func (s *Server) handle(ctx context.Context, method string, call func(context.Context) error) error {
	start := time.Now()
	id, err := s.admit(ctx, method)
	if err == nil {
		err = guard(s.within(ctx, id), call)
	}
	return s.conclude(ctx, method, start, id, err)
}

// within is the context of a call.
func (s *Server) within(ctx context.Context, id Identity) context.Context {
	ctx = context.WithValue(ctx, identityKey{}, id)
	return context.WithValue(ctx, serverKey{}, s)
}

// conclude is how a call ends for its caller, and in the log.
func (s *Server) conclude(ctx context.Context, method string, start time.Time, id Identity, err error) error {
	code := codes.OK
	if err != nil {
		st, hidden := toStatus(err, s.cfg.Name)
		if hidden {
			s.cfg.Log.ErrorContext(ctx, "internal error", "method", method, "error", err)
		}
		code, err = st.Code(), st.Err()
	}
	s.cfg.Log.LogAttrs(ctx, slog.LevelDebug, "call", slog.String("method", method), slog.String("code", code.String()),
		slog.Duration("took", time.Since(start)), slog.String("room", id.Room), slog.Bool("admin", id.Admin), slog.String("bound", id.Bound.Name))
	return err
}

// guard turns a panic into an error, so that one call's bug ends one call.
func guard(ctx context.Context, call func(context.Context) error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return call(ctx)
}

// Aside does a part of a call that takes much stack on a stack of its own, so that the
// one of a stream that then waits for hours stays small. A panic ends the call alone, as
// everywhere in it.
func Aside(ctx context.Context, part func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- guard(ctx, part) }()
	return <-done
}
