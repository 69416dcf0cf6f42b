package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	testv1 "google.golang.org/grpc/interop/grpc_testing"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The methods of the service that the tests call.
const (
	unaryMethod  = "/grpc.testing.TestService/EmptyCall"
	streamMethod = "/grpc.testing.TestService/FullDuplexCall"
)

var public = map[string]rpc.Access{unaryMethod: {Public: true}, streamMethod: {Public: true}}

// service answers every call of the test with do.
type service struct {
	testv1.UnimplementedTestServiceServer
	do func(context.Context) error
}

func (s service) EmptyCall(ctx context.Context, _ *testv1.Empty) (*testv1.Empty, error) {
	return &testv1.Empty{}, s.do(ctx)
}

func (s service) FullDuplexCall(stream testv1.TestService_FullDuplexCallServer) error {
	return s.do(stream.Context())
}

func (s service) UnaryCall(_ context.Context, req *testv1.SimpleRequest) (*testv1.SimpleResponse, error) {
	return &testv1.SimpleResponse{Payload: req.GetPayload()}, nil
}

// calls are the two shapes a call has; what holds for one holds for the other.
var calls = map[string]func(context.Context, *grpc.ClientConn) error{
	"unary": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := testv1.NewTestServiceClient(conn).EmptyCall(ctx, &testv1.Empty{})
		return err
	},
	"stream": func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := testv1.NewTestServiceClient(conn).FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	},
}

// serve runs a server until the test ends or the returned function is called,
// which gives what Serve returned.
func serve(t *testing.T, cfg rpc.Config, do func(context.Context) error, lis ...net.Listener) (stop func() error) {
	t.Helper()
	server := rpc.NewServer(cfg)
	testv1.RegisterTestServiceServer(server, service{do: do})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis...) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return stop
}

// onPipe serves do on a pipe and returns a connection of nobody in particular.
func onPipe(t *testing.T, cfg rpc.Config, do func(context.Context) error) *grpc.ClientConn {
	t.Helper()
	pipe := rpc.NewPipe()
	serve(t, cfg, do, pipe)
	return throughPipe(t, pipe, "", nil)
}

func throughPipe(t *testing.T, pipe *rpc.Pipe, room string, tracer trace.TracerProvider) *grpc.ClientConn {
	t.Helper()
	conn, err := pipe.Dial(room, tracer)
	return closing(t, conn, err)
}

func dial(t *testing.T, target string, p rpc.Peer) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(target, p)
	return closing(t, conn, err)
}

func closing(t *testing.T, conn *grpc.ClientConn, err error) *grpc.ClientConn {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func onTCP(t *testing.T) net.Listener { return listen(t, "tcp", "127.0.0.1:0") }

func onUnix(t *testing.T) net.Listener {
	return listen(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	lis, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func succeed(context.Context) error { return nil }

// logbook is a log, and what logs into it.
type logbook struct{ kittest.Logbook }

func (l *logbook) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level}))
}
