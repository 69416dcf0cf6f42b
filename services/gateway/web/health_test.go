package web

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// says is a room whose every call ends as it says.
type says struct {
	state healthv1.HealthCheckResponse_ServingStatus
	err   error
	alive bool // it answers whether it serves, whatever it lacks
}

func (s says) Invoke(_ context.Context, _ string, request, reply any, _ ...grpc.CallOption) error {
	if s.alive && request.(*healthv1.HealthCheckRequest).GetService() == "" {
		return nil
	}
	reply.(*healthv1.HealthCheckResponse).Status = s.state
	return s.err
}

func (says) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "there are no streams")
}

func TestRoomThatIsNotWellSaysHow(t *testing.T) {
	for name, test := range map[string]struct {
		room        says
		state, text string
	}{
		"serves":              {says{state: healthv1.HealthCheckResponse_SERVING}, "up", ""},
		"serves not":          {says{state: healthv1.HealthCheckResponse_NOT_SERVING}, "not ready", "see its log"},
		"lacks its database":  {says{err: status.Error(codes.Unavailable, "not ready: no database at 10.1.2.3"), alive: true}, "not ready", "see its log"},
		"is away":             {says{err: status.Error(codes.Unavailable, "connection refused to 10.1.2.3")}, "down", "is kept meanwhile"},
		"knows no such check": {says{err: status.Error(codes.NotFound, "unknown service")}, "up", ""},
	} {
		t.Run(name, func(t *testing.T) {
			state, text := roomState(t.Context(), test.room)
			if state != test.state || !strings.Contains(text, test.text) || strings.Contains(text, "10.1.2.3") {
				t.Errorf("%s: %s", state, text)
			}
		})
	}
}
