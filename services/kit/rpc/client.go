package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

const (
	pipeNetwork = "bufconn"
	// pipeBuffer is allocated twice per connection.
	pipeBuffer = 256 << 10
)

// Peer says who dials, and how.
type Peer struct {
	Room  string      // "": nobody in particular
	Token string      // the room's, "": none needed
	TLS   *tls.Config // nil: plain; unix sockets are always plain
	// Patience is how long a call waits for a connection, within its own deadline,
	// before it fails as Unavailable with the reason why there is none. 0: not at
	// all, for a person who is to hear that nobody answers. Health is always asked
	// at once.
	Patience time.Duration
	Tracer   trace.TracerProvider
	Meter    metric.MeterProvider
}

// everyReplica sends calls to all addresses of a name in turn, and to none that
// cannot be reached.
const everyReplica = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// Dial returns a connection to target, host:port, unix:///path or
// dns://server/host:port, that is made when first used and made again when lost.
// Where host is a name of several addresses calls are spread over them; the name
// is looked up again when a connection ends, so new replicas are found once a
// server has ended one for its age. Errors are as in package fault. The caller
// closes it.
func Dial(target string, p Peer) (*grpc.ClientConn, error) {
	if strings.HasPrefix(target, "unix:") {
		return dialNetwork(target, p, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if !strings.Contains(target, "://") {
		target = "dns:///" + target
	}
	transport := insecure.NewCredentials()
	if p.TLS != nil {
		transport = credentials.NewTLS(p.TLS)
	}
	return dialNetwork(target, p,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(everyReplica),
		grpc.WithDisableServiceConfig()) // no TXT record says otherwise
}

func dialNetwork(target string, p Peer, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return dial(target, p, append(options,
		grpc.WithNoProxy(), // HTTPS_PROXY is there for GitHub
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))...)
}

// Pipe is a listener for callers in this process. They are believed to be the
// room they say, so an HTTP edge that carries strangers' calls dials as no room.
type Pipe struct{ *bufconn.Listener }

// NewPipe returns a pipe for Server.Serve.
func NewPipe() *Pipe {
	return &Pipe{bufconn.Listen(pipeBuffer)}
}

// Dial returns a connection through the pipe. The caller closes it.
func (p *Pipe) Dial(room string, tracer trace.TracerProvider) (*grpc.ClientConn, error) {
	return dial("passthrough:///pipe", Peer{Room: room, Tracer: tracer},
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return p.Listener.DialContext(ctx)
		}))
}

func dial(target string, p Peer, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(target, append(options,
		grpc.WithStatsHandler(clientTracing(p.Tracer, p.Meter)),
		grpc.WithUnaryInterceptor(p.unary),
		grpc.WithStreamInterceptor(p.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(defaultMaxMessage)))...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}

// sign sets who calls. What the context brings under these names goes: an HTTP
// edge copies strangers' headers into it.
func (p Peer) sign(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Delete(roomHeader)
	md.Delete(roomTokenHeader)
	md.Delete(personHeader)
	if person, _ := ctx.Value(personKey{}).(string); person != "" {
		md.Set(personHeader, person)
		md.Delete(authorization) // one call is one caller's
	}
	md.Delete(originHeader)
	if o, ok := ctx.Value(originKey{}).(Origin); ok {
		if text, err := json.Marshal(o); err == nil {
			md.Set(originHeader, string(text))
		}
	}
	if p.Room != "" {
		md.Set(roomHeader, p.Room)
	}
	if p.Token != "" {
		md.Set(roomTokenHeader, p.Token)
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// patiently makes a call once there is a connection, or patience or ctx is at its
// end; the call says then why there is none. Where the connection was lost before the
// call was sent, it is made once more. call reports whether it was sent.
func (p Peer) patiently(ctx context.Context, method string, conn *grpc.ClientConn, call func() (sent bool, err error)) error {
	if p.Patience == 0 || builtin(method) {
		_, err := call()
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	for {
		awaitReady(waiting, conn)
		sent, err := call()
		if err == nil || sent || waiting.Err() != nil || status.Code(err) != codes.Unavailable {
			return err
		}
	}
}

// awaitReady returns once there is a connection, or ctx is at its end.
func awaitReady(ctx context.Context, conn *grpc.ClientConn) {
	for {
		state := conn.GetState()
		if state == connectivity.Ready || state == connectivity.Shutdown {
			return
		}
		conn.Connect() // it may idle
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

func (p Peer) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return fromStatus(p.patiently(ctx, method, conn, func() (sent bool, err error) {
		var to peer.Peer // set once the call has a connection
		err = invoke(p.sign(ctx), method, req, reply, conn, slices.Concat(opts, []grpc.CallOption{grpc.Peer(&to)})...)
		return to.Addr != nil, err
	}))
}

func (p Peer) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	var stream grpc.ClientStream
	err := p.patiently(ctx, method, conn, func() (sent bool, err error) {
		stream, err = open(p.sign(ctx), desc, conn, method, opts...)
		return false, err // one that is not open has sent nothing
	})
	if err != nil {
		return nil, fromStatus(err)
	}
	return clientStream{stream}, nil
}

type clientStream struct{ grpc.ClientStream }

func (s clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, fromStatus(err)
}

func (s clientStream) CloseSend() error { return fromStatus(s.ClientStream.CloseSend()) }

func (s clientStream) SendMsg(m any) error { return fromStatus(s.ClientStream.SendMsg(m)) }

func (s clientStream) RecvMsg(m any) error { return fromStatus(s.ClientStream.RecvMsg(m)) }
