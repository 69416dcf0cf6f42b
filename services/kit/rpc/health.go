package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Ready is the name by which a check of health asks whether a server has all that
// its calls need. "" asks whether it serves.
const Ready = "ready"

// readyWithin bounds how long a server looks.
const readyWithin = 2 * time.Second

// readiness is the health of a server, and of what its calls need.
type readiness struct {
	*health.Server
	ready func(ctx context.Context) error        // nil: they need nothing
	about func(ctx context.Context) (any, error) // nil: it says nothing
}

// Check has an error where something is missing that calls need. It says what that is.
func (r readiness) Check(ctx context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if req.GetService() == about && r.about != nil {
		return r.checkAbout(ctx)
	}
	if req.GetService() != Ready {
		return r.Server.Check(ctx, req)
	}
	answer, err := r.Server.Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || r.ready == nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := r.ready(ctx); err != nil {
		return nil, fault.Newf(fault.Unavailable, "not ready: %w", err)
	}
	return answer, nil
}
