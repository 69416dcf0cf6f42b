package rpc

import (
	"context"
	"encoding/json"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/kit/fault"
)

// about is the name by which a check of health asks what a server says of itself. The
// answer is in a header, as JSON: so the question needs no contract of its own, and a
// server that does not know it says that there is no such name.
const (
	about       = "about"
	aboutHeader = "forge-about-bin"
)

// checkAbout sends what the server says of itself.
func (r readiness) checkAbout(ctx context.Context) (*healthv1.HealthCheckResponse, error) {
	answer, err := r.Server.Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return nil, err
	}
	said, err := r.about(ctx)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(said)
	if err != nil {
		return nil, err
	}
	return answer, grpc.SetHeader(ctx, metadata.Pairs(aboutHeader, string(text)))
}

// AskAbout asks a server what it says of itself, and reads that into said. An error of
// kind fault.NotFound says that it answers and says nothing.
func AskAbout(ctx context.Context, conn grpc.ClientConnInterface, said any) error {
	var header metadata.MD
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: about}, grpc.Header(&header)); err != nil {
		return err
	}
	text := header.Get(aboutHeader)
	if len(text) != 1 {
		return fault.New(fault.NotFound, "it does not say which version it is")
	}
	return json.Unmarshal([]byte(text[0]), said)
}
