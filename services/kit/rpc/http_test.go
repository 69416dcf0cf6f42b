package rpc_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// said is what an HTTP handler beside gRPC says.
const said = "up 1"

func besideHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, said) })
}

// get asks over HTTP/1, as Prometheus does, on a connection of its own.
func get(t *testing.T, url string, config *tls.Config) (answer string, err error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func TestHTTPIsAnsweredWhereGRPCIsServed(t *testing.T) {
	ca := newAuthority(t)
	serverTLS := &tls.Config{Certificates: []tls.Certificate{ca.sign(t, "config", "config.forge")}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven}
	clientTLS := &tls.Config{RootCAs: ca.pool, ServerName: "config.forge"}
	both := clientTLS.Clone()
	both.NextProtos = []string{"h2", "http/1.1"}
	for name, c := range map[string]struct {
		scheme         string
		server, client *tls.Config
	}{
		"plain": {"http", nil, nil}, "TLS": {"https", serverTLS, clientTLS}, "TLS, and HTTP/2 is offered, too": {"https", serverTLS, both},
	} {
		t.Run(name, func(t *testing.T) {
			lis := onTCP(t)
			serve(t, rpc.Config{Access: public, TLS: c.server, HTTP: besideHandler()}, succeed, lis)
			for range 2 { // in turns, on the same address
				if answer, err := get(t, c.scheme+"://"+lis.Addr().String()+"/metrics", c.client.Clone()); err != nil || answer != said {
					t.Errorf("HTTP: %q, %v", answer, err)
				}
				if err := calls["unary"](t.Context(), dial(t, lis.Addr().String(), rpc.Peer{TLS: grpcTLS(c.client, clientTLS)})); err != nil {
					t.Errorf("gRPC: %v", err)
				}
			}
		})
	}
}

// grpcTLS is what a gRPC client speaks where an HTTP client speaks config.
func grpcTLS(config, plain *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	return plain
}

// Who could read metrics could otherwise not be told from who may call: a handler gives
// nobody a call.
func TestHTTPOpensNoCall(t *testing.T) {
	lis := onTCP(t)
	serve(t, rpc.Config{HTTP: besideHandler()}, succeed, lis)
	err := calls["unary"](t.Context(), dial(t, lis.Addr().String(), rpc.Peer{}))
	if !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a call without a token: %v", err)
	}
}

func TestWithoutAHandlerHTTPIsNotSpoken(t *testing.T) {
	lis := onTCP(t)
	serve(t, rpc.Config{Access: public}, succeed, lis)
	if answer, err := get(t, "http://"+lis.Addr().String()+"/metrics", nil); err == nil && strings.Contains(answer, said) {
		t.Errorf("it answers %q", answer)
	}
}

// Neither who says nothing, nor who says half a preface, nor who says rubbish keeps
// others from being served, or the server from stopping.
func TestStrangeConnectionsHoldNobodyUp(t *testing.T) {
	lis := onTCP(t)
	stop := serve(t, rpc.Config{Access: public, HTTP: besideHandler()}, succeed, lis)
	for _, begin := range []string{"", "P", "PRI * HTTP/2", "\x16\x03\x01\x00", "GET", "GET / HTTP/1.1\r\nHost: a"} {
		conn, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := get(t, "http://"+lis.Addr().String(), nil); err != nil || answer != said {
		t.Errorf("HTTP: %q, %v", answer, err)
	}
	if err := calls["unary"](t.Context(), dial(t, lis.Addr().String(), rpc.Peer{})); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}
