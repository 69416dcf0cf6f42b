package settings

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/forge-ci/forge/services/kit/rpc"
)

// healthWithin bounds the question: whoever supervises a service asks again soon.
const healthWithin = 3 * time.Second

// HealthFlags are those of the verb that asks for health.
type HealthFlags struct {
	Ready bool `help:"With health: ask whether it has all that its calls need, too, such as its database."`
}

// Health asks the service of this machine that has these settings, and is nil where
// it serves and, if that is asked, is ready. With a certificate it must show that one.
func (c Certificate) Health(ctx context.Context, address string, ready bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("FORGE_GRPC_ADDRESS is %q: use host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	var peer rpc.Peer
	if c != (Certificate{}) {
		config, _, err := c.load()
		if err != nil {
			return err
		}
		own := config.Certificates[0].Certificate[0]
		config.InsecureSkipVerify = true // what is shown is compared instead, whatever names it has
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if shown := state.PeerCertificates; len(shown) == 0 || !bytes.Equal(shown[0].Raw, own) {
				return errors.New("another certificate than FORGE_TLS_CERT is shown")
			}
			return nil
		}
		peer.TLS = config
	}
	conn, err := rpc.Dial(net.JoinHostPort(host, port), peer)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	asked := &healthv1.HealthCheckRequest{}
	if ready {
		asked.Service = rpc.Ready
	}
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, asked)
	if err != nil {
		return fmt.Errorf("health of %s: %w", address, err)
	}
	if state := answer.GetStatus(); state != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("health of %s: %s", address, state)
	}
	return nil
}
