package forgexec

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// maxMessage leaves room for the plan of 500 long steps.
const maxMessage = 16 << 20

// oneReplica has runners spread over the addresses of a name: each takes one, and
// the next where that does not answer.
const oneReplica = `{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`

// dialer returns what connects to url, unix:///path or host:port, where the
// certificates in ca are trusted; "": the system's.
func dialer(url, ca string) (func() (*grpc.ClientConn, error), error) {
	transport, err := transport(url, ca)
	if err != nil {
		return nil, err
	}
	return func() (*grpc.ClientConn, error) {
		return grpc.NewClient(url,
			grpc.WithTransportCredentials(transport),
			grpc.WithNoProxy(), // a proxy in the image's environment is for the commands
			grpc.WithDisableServiceConfig(),
			grpc.WithDefaultServiceConfig(oneReplica),
			// A scheduler that vanished with its machine says nothing.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	}, nil
}

func transport(url, ca string) (credentials.TransportCredentials, error) {
	if strings.HasPrefix(url, "unix:") {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("%s holds no PEM certificate", caEnv)
		}
	}
	return credentials.NewTLS(config), nil
}
