package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// forgeClient is a running Forge, as an admin sees it.
type forgeClient struct {
	conn       *grpc.ClientConn
	token      string
	deliveries gatewayv1.DeliveryServiceClient
	builds     schedulerv1.BuildServiceClient
}

func newForgeClient(conn *grpc.ClientConn, token string) *forgeClient {
	return &forgeClient{
		conn: conn, token: token,
		deliveries: gatewayv1.NewDeliveryServiceClient(conn), builds: schedulerv1.NewBuildServiceClient(conn),
	}
}

// admin is ctx with the admin token.
func (f *forgeClient) admin(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+f.token)
}
