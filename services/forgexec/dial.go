package forgexec

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// maxMessage leaves room for the plan of 500 long steps.
const maxMessage = 16 << 20

// dialer returns what connects to url, unix:///path or host:port.
func dialer(url, caFile string) (func() (*grpc.ClientConn, error), error) {
	transport, err := transport(url, caFile)
	if err != nil {
		return nil, err
	}
	return func() (*grpc.ClientConn, error) {
		return grpc.NewClient(url,
			grpc.WithTransportCredentials(transport),
			grpc.WithNoProxy(), // a proxy in the image's environment is for the commands
			grpc.WithDisableServiceConfig(),
			// A scheduler that vanished with its machine says nothing.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	}, nil
}

func transport(url, caFile string) (credentials.TransportCredentials, error) {
	if strings.HasPrefix(url, "unix:") {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", caEnv, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no PEM certificate", caEnv, caFile)
		}
	}
	return credentials.NewTLS(config), nil
}
