package rpc

import (
	"crypto/tls"
	"net"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
)

// tcpTLS speaks TLS on TCP and nothing on what never leaves the host.
type tcpTLS struct {
	credentials.TransportCredentials
}

func serverTransport(cfg *tls.Config) credentials.TransportCredentials {
	if cfg == nil {
		return insecure.NewCredentials()
	}
	return tcpTLS{credentials.NewTLS(cfg)}
}

func (t tcpTLS) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, tcp := conn.RemoteAddr().(*net.TCPAddr); tcp {
		return t.TransportCredentials.ServerHandshake(conn)
	}
	return insecure.NewCredentials().ServerHandshake(conn)
}

func (t tcpTLS) Clone() credentials.TransportCredentials {
	return tcpTLS{t.TransportCredentials.Clone()}
}

func serverTracing(tracer trace.TracerProvider, meter metric.MeterProvider) stats.Handler {
	return otelgrpc.NewServerHandler(tracing(tracer, meter)...)
}

func clientTracing(tracer trace.TracerProvider, meter metric.MeterProvider) stats.Handler {
	return otelgrpc.NewClientHandler(tracing(tracer, meter)...)
}

// tracing spells out every provider: otelgrpc falls back on globals else.
func tracing(tracer trace.TracerProvider, meter metric.MeterProvider) []otelgrpc.Option {
	if tracer == nil {
		tracer = tracenoop.NewTracerProvider()
	}
	if meter == nil {
		meter = metricnoop.NewMeterProvider()
	}
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tracer),
		otelgrpc.WithMeterProvider(meter),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return !untraced(info.FullMethodName) }),
	}
}
