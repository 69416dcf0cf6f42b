package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// preface begins every connection of HTTP/2, as RFC 9113 has it in section 3.4, and so
// every one of gRPC; no request of HTTP/1 begins like its method.
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	method  = len("PRI ")
)

// beside hands connections that speak HTTP/1 to an HTTP server, at the address where
// gRPC is served.
type beside struct {
	credentials.TransportCredentials
	tls      *tls.Config // nil: plain text
	conns    *handedOver
	stopping context.Context //nolint:containedctx // ends when the server begins to stop, which waits for nobody who says nothing
}

func newBeside(s *Server) beside {
	config := s.cfg.TLS
	if config != nil {
		http1 := config.Clone()
		http1.NextProtos = []string{"http/1.1"}
		config = config.Clone()
		config.NextProtos = []string{"h2"}
		// Who speaks both, as Prometheus does, is no gRPC: that offers HTTP/2 alone.
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "http/1.1") {
				return http1, nil
			}
			return nil, nil //nolint:nilnil // crypto/tls's own word for the configuration as it is
		}
	}
	return beside{serverTransport(config), config, s.http, s.stopping}
}

func (b beside) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, tcp := conn.RemoteAddr().(*net.TCPAddr); !tcp { // a pipe or a socket, where there is nobody who speaks HTTP/1
		return b.TransportCredentials.ServerHandshake(conn)
	}
	if b.tls != nil {
		return b.secure(conn)
	}
	defer context.AfterFunc(b.stopping, func() { _ = conn.Close() })()
	begun := make([]byte, len(preface))
	if _, err := io.ReadFull(conn, begun[:method]); err != nil {
		return nil, nil, err
	}
	if string(begun[:method]) != preface[:method] {
		return b.conns.take(&begunConn{Conn: conn, begun: begun[:method]})
	}
	if _, err := io.ReadFull(conn, begun[method:]); err != nil {
		return nil, nil, err
	}
	return b.TransportCredentials.ServerHandshake(&begunConn{Conn: conn, begun: begun})
}

// secure does what gRPC's own credentials do, but that they refuse who does not say that
// it speaks HTTP/2.
func (b beside) secure(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Server(raw, b.tls)
	if err := conn.HandshakeContext(b.stopping); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return b.conns.take(conn)
	}
	return conn, credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (b beside) Clone() credentials.TransportCredentials {
	b.TransportCredentials = b.TransportCredentials.Clone()
	return b
}

// begunConn gives what was read of a connection already once more.
type begunConn struct {
	net.Conn
	begun []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// handedOver is the listener of the HTTP server.
type handedOver struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newHandedOver() *handedOver {
	done := make(chan struct{})
	return &handedOver{conns: make(chan net.Conn), done: done, close: sync.OnceFunc(func() { close(done) })}
}

// take gives a connection to the HTTP server, which closes it.
func (h *handedOver) take(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case h.conns <- conn:
		return nil, nil, credentials.ErrConnDispatched
	case <-h.done:
		return nil, nil, net.ErrClosed
	}
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error {
	h.close()
	return nil
}

func (h *handedOver) Addr() net.Addr { return &net.TCPAddr{} }

// serveHTTP serves what is handed over until ctx ends; requests then have 5 s.
func (s *Server) serveHTTP(ctx context.Context) error {
	server := &http.Server{
		Handler: s.cfg.HTTP, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.http) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP beside gRPC: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // what it says is of connections that are cut off
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP beside gRPC: %w", err)
	}
	return nil
}
