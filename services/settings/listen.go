package settings

import (
	"fmt"
	"net"
	"strconv"

	"github.com/forge-ci/forge/services/kit/daemon"
)

// Listen listens where gRPC is served.
func (g GRPC) Listen() (net.Listener, error) {
	return listen("tcp", g.GRPCAddress, "FORGE_GRPC_ADDRESS (--grpc-address)")
}

// ListenHTTP listens where HTTP is served.
func (g Gateway) ListenHTTP() (net.Listener, error) {
	return listen("tcp", net.JoinHostPort(g.Address, strconv.Itoa(g.Port)), "FORGE_PORT (--port)")
}

func listen(network, address, setting string) (net.Listener, error) {
	lis, err := daemon.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with %s", err, setting)
	}
	return lis, nil
}
