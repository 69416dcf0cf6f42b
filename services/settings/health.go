package settings

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
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
	conn, err := c.dial(address, false)
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

// DialAny connects to any service that has these settings, or whose certificate the same
// authority has signed, whatever names it has. The caller closes it.
func (c Certificate) DialAny(address string) (*grpc.ClientConn, error) { return c.dial(address, true) }

func (c Certificate) dial(address string, signed bool) (*grpc.ClientConn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("FORGE_GRPC_ADDRESS is %q: use host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	var peer rpc.Peer
	if c != (Certificate{}) {
		config, authority, err := c.load()
		if err != nil {
			return nil, err
		}
		if !signed {
			authority = nil
		}
		own := config.Certificates[0].Certificate[0]
		config.InsecureSkipVerify = true // what is shown is looked at instead, whatever names it has
		config.VerifyConnection = func(state tls.ConnectionState) error { return vouched(state.PeerCertificates, own, authority) }
		peer.TLS = config
	}
	return rpc.Dial(net.JoinHostPort(host, port), peer)
}

// vouched is nil where one's own certificate is shown, or one that the authority, if there
// is one, has signed.
func vouched(shown []*x509.Certificate, own, authority []byte) error {
	if len(shown) > 0 && bytes.Equal(shown[0].Raw, own) {
		return nil
	}
	if len(shown) == 0 || authority == nil {
		return errors.New("another certificate than FORGE_TLS_CERT is shown")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}
