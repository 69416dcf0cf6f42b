package rpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

func TestReadinessIsAskedForByName(t *testing.T) {
	var missing error
	pipe := rpc.NewPipe()
	server := rpc.NewServer(rpc.Config{Ready: func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may take for ever")
		}
		return missing
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	ask := func(name string) (*healthv1.HealthCheckResponse, error) {
		return healthv1.NewHealthClient(throughPipe(t, pipe, "", nil)).Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
	}
	for _, missing = range []error{nil, errors.New("the database does not answer"), nil} {
		if answer, err := ask(""); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("it serves: %v, %v", answer, err)
		}
		switch answer, err := ask(rpc.Ready); {
		case missing == nil && (err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING):
			t.Errorf("it is ready: %v, %v", answer, err)
		case missing != nil && (!fault.Is(err, fault.Unavailable) || !strings.HasSuffix(status.Convert(err).Message(), "not ready: the database does not answer")):
			t.Errorf("it is not ready: %v, %v", answer, err)
		}
	}
	server.SetServing("", false)
	if answer, err := ask(rpc.Ready); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("it stops: %v, %v", answer, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAServerWhoseCallsNeedNothingIsReady(t *testing.T) {
	pipe := rpc.NewPipe()
	stop := serve(t, rpc.Config{}, succeed, pipe)
	answer, err := healthv1.NewHealthClient(throughPipe(t, pipe, "", nil)).Check(t.Context(), &healthv1.HealthCheckRequest{Service: rpc.Ready})
	if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", answer, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAServerSaysWhatItIsToWhoAsks(t *testing.T) {
	type said struct{ Version string }
	wrong := errors.New("the database does not answer")
	for name, c := range map[string]struct {
		about func(context.Context) (any, error)
		want  said
		kind  fault.Kind
	}{
		"it says":            {func(context.Context) (any, error) { return said{"v1"}, nil }, said{"v1"}, fault.Internal},
		"it does not know":   {func(context.Context) (any, error) { return nil, fault.Newf(fault.Unavailable, "%w", wrong) }, said{}, fault.Unavailable},
		"it was never asked": {nil, said{}, fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			pipe := rpc.NewPipe()
			stop := serve(t, rpc.Config{About: c.about}, succeed, pipe)
			var got said
			err := rpc.AskAbout(t.Context(), throughPipe(t, pipe, "", nil), &got)
			if got != c.want || (err == nil) != (c.want != said{}) || err != nil && fault.KindOf(err) != c.kind {
				t.Errorf("%+v, %v", got, err)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
