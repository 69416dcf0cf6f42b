package settings

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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

// ListenRunner listens for forgexec and returns the URL it is told to dial. The
// default is a socket in a directory of its own, so that a container can be
// given the directory and nothing else.
func (s Scheduler) ListenRunner(dataDir string) (lis net.Listener, url string, err error) {
	const setting = "FORGE_RUNNER_ADDRESS (--runner-address)"
	path, unix := strings.CutPrefix(s.RunnerAddress, "unix://")
	switch {
	case s.RunnerAddress == "":
		path = filepath.Join(dataDir, "runner", "runner.sock")
	case !unix:
		return nil, "", fmt.Errorf("%s is %q: use unix:///path/to/a/socket", setting, s.RunnerAddress)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, "", fmt.Errorf("%s: %w", setting, err)
	}
	// Users inside containers connect; none of them may list or write.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // see above
		return nil, "", fmt.Errorf("%s: %w", setting, err)
	}
	if lis, err = listen("unix", path, setting); err != nil {
		return nil, "", err
	}
	if s.RunnerURL != "" {
		return lis, s.RunnerURL, nil
	}
	return lis, "unix://" + path, nil
}

func listen(network, address, setting string) (net.Listener, error) {
	lis, err := daemon.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with %s", err, setting)
	}
	return lis, nil
}
