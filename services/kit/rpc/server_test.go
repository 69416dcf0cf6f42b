package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

func TestCallInFlightEndsBeforeTheServer(t *testing.T) {
	pipe := rpc.NewPipe()
	arrived, answer := make(chan struct{}), make(chan struct{})
	stop := serve(t, rpc.Config{Access: public}, func(ctx context.Context) error {
		close(arrived)
		<-rpc.Stopping(ctx)
		<-answer
		return ctx.Err()
	}, pipe)
	conn := throughPipe(t, pipe, "", nil)
	called := make(chan error, 1)
	go func() { called <- calls["unary"](t.Context(), conn) }()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("the server has stopped with a call in flight: %v", err)
	case answer <- struct{}{}:
	}
	if err := <-called; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := calls["unary"](t.Context(), conn); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a call after the end: %v", err)
	}
}

func TestCallThatDoesNotEndIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := rpc.NewPipe()
		arrived := make(chan struct{})
		stop := serve(t, rpc.Config{Access: public}, func(ctx context.Context) error {
			close(arrived)
			<-ctx.Done()
			return ctx.Err()
		}, pipe)
		conn := throughPipe(t, pipe, "", nil)
		called := make(chan error, 1)
		go func() { called <- calls["stream"](t.Context(), conn) }()
		<-arrived
		start := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the server stopped after %s", took)
		}
		if err := <-called; !fault.Is(err, fault.Unavailable) {
			t.Errorf("the call: %v", err)
		}
	})
}

func TestHealthWatchSeesTheEndAndDoesNotDelayIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := rpc.NewPipe()
		stop := serve(t, rpc.Config{}, succeed, pipe)
		watch, err := healthv1.NewHealthClient(throughPipe(t, pipe, "", nil)).Watch(t.Context(), &healthv1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if first, err := watch.Recv(); err != nil || first.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Fatalf("at first: %v, %v", first, err)
		}
		start := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("stopping took %s", took)
		}
		if last, err := watch.Recv(); err != nil || last.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("in the end: %v, %v", last, err)
		}
	})
}

func TestHealthOfAServiceIsSet(t *testing.T) {
	pipe := rpc.NewPipe()
	server := rpc.NewServer(rpc.Config{})
	server.SetServing("forge.scheduler.v1.BuildService", false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	health, err := healthv1.NewHealthClient(throughPipe(t, pipe, "", nil)).
		Check(t.Context(), &healthv1.HealthCheckRequest{Service: "forge.scheduler.v1.BuildService"})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", health, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServerToldToStopBeforeItServesStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rpc.NewServer(rpc.Config{}).Serve(ctx, rpc.NewPipe(), onTCP(t)); err != nil {
		t.Error(err)
	}
}

func TestListenerThatBreaksStopsTheServer(t *testing.T) {
	broken := onTCP(t)
	broken.Close()
	err := rpc.NewServer(rpc.Config{}).Serve(t.Context(), rpc.NewPipe(), broken)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), broken.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestClientFindsTheServerAgain(t *testing.T) {
	first := onTCP(t)
	address := first.Addr().String()
	stop := serve(t, rpc.Config{Access: public}, succeed, first)
	conn := dial(t, address, rpc.Peer{})
	if err := calls["unary"](t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := calls["unary"](t.Context(), conn); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("with nobody there: %v", err)
	}
	serve(t, rpc.Config{Access: public}, succeed, listen(t, "tcp", address))
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.Connect()
		conn.WaitForStateChange(t.Context(), state)
	}
	if err := calls["unary"](t.Context(), conn); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestLargestPayloadPasses(t *testing.T) {
	pipe := rpc.NewPipe()
	serve(t, rpc.Config{AdminToken: "adm"}, succeed, pipe)
	client := testv1.NewTestServiceClient(throughPipe(t, pipe, "", nil))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer adm")
	body := bytes.Repeat([]byte("x"), 25<<20)
	resp, err := client.UnaryCall(ctx, &testv1.SimpleRequest{Payload: &testv1.Payload{Body: body}})
	if err != nil || !bytes.Equal(resp.GetPayload().GetBody(), body) {
		t.Errorf("25 MiB: %d bytes came back, %v", len(resp.GetPayload().GetBody()), err)
	}
	_, err = client.UnaryCall(ctx, &testv1.SimpleRequest{Payload: &testv1.Payload{Body: make([]byte, 33<<20)}})
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("33 MiB: %v", err)
	}
}

func TestCallsAcrossRoomsAreOneTrace(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	config, scheduler := rpc.NewPipe(), onTCP(t)
	stopConfig := serve(t, rpc.Config{Access: public, Tracer: tracer}, succeed, config)
	toConfig := throughPipe(t, config, "scheduler", tracer)
	stopScheduler := serve(t, rpc.Config{Access: public, Tracer: tracer}, func(ctx context.Context) error {
		return calls["stream"](ctx, toConfig)
	}, scheduler)

	ctx, root := tracer.Tracer("test").Start(t.Context(), "delivery")
	conn := dial(t, scheduler.Addr().String(), rpc.Peer{Tracer: tracer})
	if err := calls["unary"](ctx, conn); err != nil {
		t.Fatal(err)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	root.End()
	// A server ends its span after its answer.
	if err := errors.Join(stopScheduler(), stopConfig()); err != nil {
		t.Fatal(err)
	}

	ended := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	for _, span := range spans.Ended() {
		ended[span.SpanContext().SpanID()] = span
	}
	const unary, stream = "grpc.testing.TestService/EmptyCall", "grpc.testing.TestService/FullDuplexCall"
	got := map[string]int{}
	for _, span := range ended {
		var path []string
		for ok := true; ok; span, ok = ended[span.Parent().SpanID()] {
			path = append(path, span.SpanKind().String()+" "+span.Name())
		}
		got[strings.Join(path, " < ")]++
	}
	want := map[string]int{
		"internal delivery":                                                                                               1,
		"client " + unary + " < internal delivery":                                                                        1,
		"server " + unary + " < client " + unary + " < internal delivery":                                                 1,
		"client " + stream + " < server " + unary + " < client " + unary + " < internal delivery":                         1,
		"server " + stream + " < client " + stream + " < server " + unary + " < client " + unary + " < internal delivery": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCallsAreLoggedWithoutSecrets(t *testing.T) {
	var log logbook
	conn := onPipe(t, rpc.Config{Log: log.logger(slog.LevelDebug), AdminToken: "s3cret"}, func(context.Context) error {
		return fault.New(fault.NotFound, "no build b1")
	})
	for _, call := range calls {
		if err := call(bearer(t.Context(), "Bearer s3cret"), conn); !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	}
	for _, method := range []string{unaryMethod, streamMethod} {
		if want := "msg=call method=" + method + " code=NotFound"; !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Errorf("the token is in the log: %s", log.String())
	}
}
