package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

const (
	defaultMaxMessage = 32 << 20 // GitHub's largest payload is 25 MiB
	defaultDeadline   = 30 * time.Second
	stopGrace         = 5 * time.Second
	readBuffer        = 512
	defaultAge        = 5 * time.Minute
)

// Config is what a Server needs to know. The zero value serves the admin alone,
// who has no token then: nobody.
type Config struct {
	Name       string            // of the service, as errors and logs say it
	Access     map[string]Access // by full method, "/forge.x.v1.Y/Z"; what is not listed is the admin's
	AdminToken string

	// A room proves itself by its token here or by a client certificate that
	// TLS.ClientCAs has signed, whose common name (else first DNS name) it is.
	// TLS is spoken on TCP only.
	RoomTokens map[string]string
	// Behalf are rooms that call for people, whom they know and have found to be allowed
	// the call: it is admitted as the admin's would be.
	Behalf []string
	TLS    *tls.Config
	// TrustLoopback believes any process of this host, unix sockets included,
	// that it is the room it says; where there are room tokens or client
	// certificates it is ignored. A server on a socket that builds can reach
	// must not set it.
	TrustLoopback bool
	// Bound finds the token that is bound to a repository, for methods that take one; nil:
	// there are none here. fault.Unauthenticated: it is none, or none any more.
	Bound func(ctx context.Context, token string) (Bound, error)
	// Bare leaves out health and reflection: for an address that strangers reach.
	Bare bool

	// HTTP answers what speaks HTTP/1 on TCP where gRPC is served; nil: nothing does. It
	// sees itself to who asks.
	HTTP http.Handler

	// Ready says what is missing that calls need, in words for anybody; nil: nothing
	// ever is.
	Ready func(ctx context.Context) error
	// About is what the server says of itself to anybody, as JSON: see AskAbout; nil:
	// nothing.
	About func(ctx context.Context) (any, error)

	Log    *slog.Logger         // nil: none
	Tracer trace.TracerProvider // nil: none
	Meter  metric.MeterProvider // nil: none

	MaxMessage int           // bytes, 0: 32 MiB
	Deadline   time.Duration // of unary calls that come without one, 0: 30 s
	// Age is how old a connection gets, give or take a tenth, before its caller is
	// asked to make another, and so learns of new replicas; 0: 5 min. Calls and
	// streams on the old one go on to their own ends, however late.
	Age time.Duration
}

// Server serves registered services, their health and their reflection.
type Server struct {
	cfg           Config
	trustLoopback bool
	grpc          *grpc.Server
	health        *health.Server
	http          *handedOver     // nil: there is no HTTP
	stopping      context.Context //nolint:containedctx // ends when the server begins to stop, whatever the call
	beginStop     context.CancelFunc
}

// NewServer returns a server to register services with, then to Serve once.
func NewServer(cfg Config) *Server {
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = defaultDeadline
	}
	if cfg.Age == 0 {
		cfg.Age = defaultAge
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	mutual := cfg.TLS != nil && cfg.TLS.ClientCAs != nil
	stopping, beginStop := context.WithCancel(context.Background())
	s := &Server{
		cfg:           cfg,
		trustLoopback: cfg.TrustLoopback && len(cfg.RoomTokens) == 0 && !mutual,
		health:        health.NewServer(),
		stopping:      stopping,
		beginStop:     beginStop,
	}
	transport := serverTransport(cfg.TLS)
	if cfg.HTTP != nil {
		s.http = newHandedOver()
		transport = newBeside(s)
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(transport),
		grpc.StatsHandler(serverTracing(cfg.Tracer, cfg.Meter)),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(cfg.MaxMessage),
		grpc.WaitForHandlers(true),
		// Thousands of runners are silent: a connection holds a small buffer for reading,
		// past which is read what is larger, and while it writes nothing none for writing.
		grpc.ReadBufferSize(readBuffer),
		// A connection that is too old is pinged no more. TCP's own keepalive, which
		// Timeout bounds, finds out when the peer of a stream on it is gone.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: cfg.Age}),
		// A forgexec waits for hours on a silent stream and must notice a dead peer.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	if !cfg.Bare {
		healthv1.RegisterHealthServer(s.grpc, readiness{s.health, cfg.Ready, cfg.About})
		reflection.Register(s.grpc)
	}
	return s
}

// RegisterService implements grpc.ServiceRegistrar; the service is healthy from
// now on.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.SetServing(desc.ServiceName, true)
}

// SetServing sets the health of a service; "" is the server as a whole.
func (s *Server) SetServing(service string, ok bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if ok {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, state)
}

// Serve serves on all listeners, which it closes, until ctx ends. Then health
// says NOT_SERVING, new calls are refused, and those in flight get 5 s before
// their contexts end; Serve returns once all handlers have.
func (s *Server) Serve(ctx context.Context, lis ...net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range lis {
		group.Go(func() error {
			if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	if s.http != nil {
		group.Go(func() error { return s.serveHTTP(ctx) })
	}
	group.Go(func() error {
		<-ctx.Done()
		s.stop()
		return nil
	})
	return group.Wait()
}

// TurnAway has health say NOT_SERVING when ctx ends, while calls go on. As the
// part of a process that is stopped first it sends callers elsewhere in time.
func (s *Server) TurnAway(ctx context.Context) error {
	<-ctx.Done()
	s.health.Shutdown()
	return nil
}

func (s *Server) stop() {
	s.health.Shutdown()
	s.beginStop()
	cut := time.AfterFunc(stopGrace, s.grpc.Stop)
	defer cut.Stop()
	s.grpc.GracefulStop()
}
