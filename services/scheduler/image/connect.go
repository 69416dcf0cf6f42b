package image

import (
	"context"
	"fmt"
	"net"
	"net/url"

	bkclient "github.com/moby/buildkit/client"
	"google.golang.org/grpc"
)

// connect opens a connection to BuildKit. The caller closes it.
func (b *Builder) connect(ctx context.Context, over *over) (*bkclient.Client, error) {
	watched := bkclient.WithGRPCDialOption(grpc.WithChainStreamInterceptor(over.watch))
	if b.config.URL != "" {
		options := []bkclient.ClientOpt{watched}
		if at, err := url.Parse(b.config.URL); err == nil && at.Scheme == "tcp" {
			options = append(options, bkclient.WithServerConfig(at.Hostname(), b.config.TLS.CA), bkclient.WithCredentials(b.config.TLS.Cert, b.config.TLS.Key))
		}
		c, err := bkclient.New(ctx, b.config.URL, options...)
		if err != nil {
			return nil, fmt.Errorf("BuildKit at %s: %w", b.config.URL, err)
		}
		return c, nil
	}
	docker := b.config.Docker
	c, err := bkclient.New(ctx, "", watched,
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return docker.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return docker.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		return nil, fmt.Errorf("BuildKit of the Docker engine: %w", err)
	}
	return c, nil
}

// own reports whether BuildKit is the Docker engine's own.
func (b *Builder) own() bool { return b.config.URL == "" }
