package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// eachCall calls do's service on a pipe, as a unary call and as a stream.
func eachCall(t *testing.T, cfg rpc.Config, do func(context.Context) error, check func(t *testing.T, err error)) {
	t.Helper()
	cfg.Access = public
	conn := onPipe(t, cfg, do)
	for shape, call := range calls {
		t.Run(shape, func(t *testing.T) { check(t, call(t.Context(), conn)) })
	}
}

func TestKindsCrossTheWire(t *testing.T) {
	for kind, code := range map[fault.Kind]codes.Code{
		fault.Invalid:         codes.InvalidArgument,
		fault.NotFound:        codes.NotFound,
		fault.Exists:          codes.AlreadyExists,
		fault.Denied:          codes.PermissionDenied,
		fault.Unauthenticated: codes.Unauthenticated,
		fault.Conflict:        codes.FailedPrecondition,
		fault.Unavailable:     codes.Unavailable,
		fault.Exhausted:       codes.ResourceExhausted,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			failing := func(context.Context) error { return fmt.Errorf("build b1: %w", fault.New(kind, "as it is")) }
			eachCall(t, rpc.Config{}, failing, func(t *testing.T, err error) {
				if !fault.Is(err, kind) || err.Error() != "build b1: as it is" {
					t.Errorf("%s %q", fault.KindOf(err), err)
				}
				st, ok := status.FromError(err)
				if !ok || st.Code() != code {
					t.Errorf("status %v", st)
				}
				info, ok := st.Details()[0].(*errdetails.ErrorInfo)
				if !ok || info.GetReason() != strings.ToUpper(kind.String()) || info.GetDomain() != "forge" {
					t.Errorf("details %v", st.Details())
				}
			})
		})
	}
}

func TestAReasonIsGivenToWhatHasNone(t *testing.T) {
	for code, want := range map[codes.Code]string{
		codes.InvalidArgument: "INVALID", codes.NotFound: "NOT_FOUND", codes.Unauthenticated: "UNAUTHENTICATED", codes.DeadlineExceeded: "UNAVAILABLE",
		codes.Unimplemented: "UNIMPLEMENTED", codes.OutOfRange: "OUT_OF_RANGE", codes.DataLoss: "DATA_LOSS", codes.Unknown: "INTERNAL",
	} {
		st := rpc.WithReason(status.New(code, "as it is"))
		info, ok := st.Details()[0].(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != want || info.GetDomain() != "forge" || st.Code() != code || st.Message() != "as it is" {
			t.Errorf("%v: %v, want %s", code, st, want)
		}
		if again := rpc.WithReason(st); len(again.Details()) != 1 {
			t.Errorf("%v: given twice: %v", code, again)
		}
	}
	if st := rpc.WithReason(status.New(codes.OK, "")); len(st.Details()) != 0 {
		t.Errorf("what is fine has %v", st.Details())
	}
}

func TestInternalTextStaysInTheLog(t *testing.T) {
	var log logbook
	failing := func(context.Context) error { return errors.New("pq: column secret does not exist") }
	eachCall(t, rpc.Config{Name: "config", Log: log.logger(slog.LevelInfo)}, failing, func(t *testing.T, err error) {
		if !fault.Is(err, fault.Internal) || err.Error() != "internal error, see the log of config" {
			t.Errorf("got %v", err)
		}
	})
	if got := strings.Count(log.String(), "column secret does not exist"); got != len(calls) {
		t.Errorf("told %d times for %d calls: %s", got, len(calls), log.String())
	}
}

func TestPanicEndsOneCallOnly(t *testing.T) {
	var log logbook
	panicking := func(context.Context) error { panic("index out of range") }
	aside := func(ctx context.Context) error { return rpc.Aside(ctx, panicking) }
	for _, call := range []func(context.Context) error{panicking, aside} {
		eachCall(t, rpc.Config{Name: "config", Log: log.logger(slog.LevelInfo)}, call, func(t *testing.T, err error) {
			if !fault.Is(err, fault.Internal) || err.Error() != "internal error, see the log of config" {
				t.Errorf("got %v", err)
			}
		})
	}
	if got := strings.Count(log.String(), "panic: index out of range"); got != 2*len(calls) {
		t.Errorf("told %d times for %d calls: %s", got, 2*len(calls), log.String())
	}
	if text := log.String(); !strings.Contains(text, "index out of range") || !strings.Contains(text, "status_test.go") {
		t.Errorf("the log has no panic with its stack: %s", text)
	}
}

func TestStatusOfAHandlerPassesWithItsDetails(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "bad page").WithDetails(&errdetails.RetryInfo{})
	if err != nil {
		t.Fatal(err)
	}
	failing := func(context.Context) error { return fmt.Errorf("list: %w", st.Err()) }
	eachCall(t, rpc.Config{}, failing, func(t *testing.T, err error) {
		got := status.Convert(err)
		if !fault.Is(err, fault.Invalid) || len(got.Details()) != 1 {
			t.Fatalf("got %v, details %v", err, got.Details())
		}
		if _, ok := got.Details()[0].(*errdetails.RetryInfo); !ok {
			t.Errorf("details %v", got.Details())
		}
	})
}

func TestErrorOfAnotherRoomKeepsItsKindUnlessGivenOne(t *testing.T) {
	for name, c := range map[string]struct {
		config  error // what the room behind says
		pass    func(error) error
		kind    fault.Kind
		text    string
		details int
	}{
		"kept": {
			fault.New(fault.NotFound, "no such repository"),
			func(err error) error { return fmt.Errorf("get config: %w", err) },
			fault.NotFound, "get config: no such repository", 1,
		},
		"given": {
			fault.New(fault.NotFound, "no such repository"),
			func(err error) error { return fault.Newf(fault.Conflict, "plan: %w", err) },
			fault.Conflict, "plan: no such repository", 1,
		},
		"made internal": {
			fault.New(fault.NotFound, "no such repository"),
			func(err error) error { return fault.Newf(fault.Internal, "lost: %w", err) },
			fault.Internal, "internal error, see the log of scheduler", 1,
		},
		"internal there": {
			errors.New("disk full"),
			func(err error) error { return err },
			fault.Internal, "internal error, see the log of scheduler", 1,
		},
		"unknown method": {
			status.Error(codes.Unimplemented, "unknown method"),
			func(err error) error { return err },
			fault.Internal, "unknown method", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			behind := onPipe(t, rpc.Config{Name: "config", Access: public}, func(context.Context) error { return c.config })
			passing := func(ctx context.Context) error { return c.pass(calls["unary"](ctx, behind)) }
			eachCall(t, rpc.Config{Name: "scheduler"}, passing, func(t *testing.T, err error) {
				if !fault.Is(err, c.kind) || err.Error() != c.text || len(status.Convert(err).Details()) != c.details {
					t.Errorf("%s %q, details %v", fault.KindOf(err), err, status.Convert(err).Details())
				}
			})
		})
	}
}

func TestCallWithoutDeadlineGetsTheServers(t *testing.T) {
	waiting := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("claim: %w", ctx.Err())
	}
	conn := onPipe(t, rpc.Config{Access: public, Deadline: time.Millisecond}, waiting)
	err := calls["unary"](t.Context(), conn)
	if !fault.Is(err, fault.Unavailable) || !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v (%s)", err, status.Code(err))
	}
}

func TestDeadlineOfTheCallerGoesFirst(t *testing.T) {
	const hour = time.Hour
	left := make(chan time.Duration, 1)
	conn := onPipe(t, rpc.Config{Access: public, Deadline: time.Minute}, func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), hour)
	defer cancel()
	if err := calls["unary"](ctx, conn); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got <= time.Minute || got > hour {
		t.Errorf("%s left of %s", got, hour)
	}
}

func TestStreamHasNoDeadlineOfItsOwn(t *testing.T) {
	conn := onPipe(t, rpc.Config{Access: public, Deadline: time.Nanosecond}, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok {
			return fault.New(fault.Conflict, "there is a deadline")
		}
		return nil
	})
	if err := calls["stream"](t.Context(), conn); err != nil {
		t.Error(err)
	}
}

func TestCancelledCallIsCancelledOnBothSides(t *testing.T) {
	for shape, call := range calls {
		t.Run(shape, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			conn := onPipe(t, rpc.Config{Access: public}, func(server context.Context) error {
				cancel()
				<-server.Done()
				ended <- server.Err()
				return server.Err()
			})
			if err := call(ctx, conn); !errors.Is(err, context.Canceled) || status.Code(err) != codes.Canceled {
				t.Errorf("client: %v (%s)", err, status.Code(err))
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("server: %v", err)
			}
		})
	}
}

func TestNobodyThereIsUnavailable(t *testing.T) {
	conn := dial(t, kittest.FreeAddress(t), rpc.Peer{})
	for shape, call := range calls {
		if err := call(t.Context(), conn); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %s %v", shape, fault.KindOf(err), err)
		}
	}
}

var _ grpc.ServiceRegistrar = (*rpc.Server)(nil)
