package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// authority signs certificates, as FORGE_TLS_CA does.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forge"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) sign(t *testing.T, commonName string, dnsNames ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: commonName}, DNSNames: dnsNames, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestCertificateProvesARoom(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{ca.sign(t, "config", "config.forge")},
		ClientCAs:    ca.pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}
	client := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: ca.pool, ServerName: "config.forge", Certificates: certificates}
	}
	for name, c := range map[string]struct {
		peer   rpc.Peer
		kind   fault.Kind
		refuse string // part of the refusal; "": admitted as scheduler
	}{
		"by common name":            {peer: rpc.Peer{Room: "scheduler", TLS: client(ca.sign(t, "scheduler"))}},
		"by DNS name":               {peer: rpc.Peer{Room: "scheduler", TLS: client(ca.sign(t, "", "scheduler", "scheduler.forge"))}},
		"without saying its name":   {peer: rpc.Peer{TLS: client(ca.sign(t, "scheduler"))}},
		"of another room":           {peer: rpc.Peer{Room: "scheduler", TLS: client(ca.sign(t, "gateway"))}, kind: fault.Unauthenticated, refuse: "the call names the room scheduler, its certificate gateway"},
		"of a room not on the list": {peer: rpc.Peer{TLS: client(ca.sign(t, "gateway"))}, kind: fault.Denied, refuse: "the room gateway may not make this call"},
		"none":                      {peer: rpc.Peer{Room: "scheduler", TLS: client()}, kind: fault.Unauthenticated, refuse: "has not proven itself to config"},
		"none, a token instead":     {peer: rpc.Peer{Room: "scheduler", Token: "s1", TLS: client()}},
		// Go's client keeps to itself a certificate the server would not accept, unless made to.
		"of another authority": {peer: rpc.Peer{Room: "scheduler", TLS: forced(client(), stranger.sign(t, "scheduler"))}, kind: fault.Unavailable},
		"no TLS":               {peer: rpc.Peer{Room: "scheduler", Token: "s1"}, kind: fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			lis := onTCP(t)
			serve(t, rpc.Config{
				Name: "config", TLS: serverTLS, RoomTokens: map[string]string{"scheduler": "s1"}, TrustLoopback: true,
				Access: map[string]rpc.Access{unaryMethod: {Rooms: []string{"scheduler"}}},
			}, func(ctx context.Context) error {
				if got := rpc.Caller(ctx).Room; got != "scheduler" {
					return fault.Newf(fault.Conflict, "admitted as %q", got)
				}
				return nil
			}, lis)
			err := calls["unary"](t.Context(), dial(t, lis.Addr().String(), c.peer))
			switch {
			case c.kind == 0 && err != nil:
				t.Error(err)
			case c.kind != 0 && (!fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.refuse)):
				t.Errorf("%v (%s)", err, fault.KindOf(err))
			}
		})
	}
}

func forced(cfg *tls.Config, certificate tls.Certificate) *tls.Config {
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	return cfg
}

func TestClientCertificatesEndTheTrustInLoopback(t *testing.T) {
	ca := newAuthority(t)
	lis := onUnix(t)
	serve(t, rpc.Config{
		Name: "config", TrustLoopback: true,
		TLS:    &tls.Config{Certificates: []tls.Certificate{ca.sign(t, "config")}, ClientCAs: ca.pool},
		Access: map[string]rpc.Access{unaryMethod: {Rooms: []string{"scheduler"}}},
	}, succeed, lis)
	err := calls["unary"](t.Context(), dial(t, "unix://"+lis.Addr().String(), rpc.Peer{Room: "scheduler"}))
	if !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestPipeAndSocketNeedNoTLS(t *testing.T) {
	ca := newAuthority(t)
	inProcess, socket, remote := rpc.NewPipe(), onUnix(t), onTCP(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.sign(t, "", "forge")}}
	serve(t, rpc.Config{TLS: server, AdminToken: "adm"}, succeed, inProcess, socket, remote)
	client := rpc.Peer{TLS: &tls.Config{RootCAs: ca.pool, ServerName: "forge"}}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer adm")
	for shape, call := range calls {
		if err := call(ctx, throughPipe(t, inProcess, "", nil)); err != nil {
			t.Errorf("%s over the pipe: %v", shape, err)
		}
		if err := call(ctx, dial(t, "unix://"+socket.Addr().String(), client)); err != nil {
			t.Errorf("%s over the socket: %v", shape, err)
		}
		if err := call(ctx, dial(t, remote.Addr().String(), client)); err != nil {
			t.Errorf("%s over TCP: %v", shape, err)
		}
	}
}
