package settings

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/forge-ci/forge/services/kit/daemon"
)

// Listen listens where gRPC is served.
func (g GRPC) Listen(ctx context.Context) (net.Listener, error) {
	return listen(ctx, "tcp", g.GRPCAddress, "FORGE_GRPC_ADDRESS (--grpc-address)")
}

// ListenHTTP listens where HTTP is served.
func (g Gateway) ListenHTTP(ctx context.Context) (net.Listener, error) {
	return listen(ctx, "tcp", net.JoinHostPort(g.Address, strconv.Itoa(g.Port)), "FORGE_PORT (--port)")
}

func listen(ctx context.Context, network, address, setting string) (net.Listener, error) {
	lis, err := daemon.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with %s", err, setting)
	}
	return lis, nil
}
