package wire_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// Four services that know each other by certificates alone do the same, and
// nobody else is taken for one of them.
func TestServicesKnowEachOtherByCertificates(t *testing.T) {
	w := newWorld(t, hello())
	w.deploy(t, deployment{apart: true, certificates: true})
	tell(t, w)

	stranger := newAuthority(t, t.TempDir())
	cert, key := stranger.certify(t, "gateway")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	forged := w.tls.Clone()
	forged.Certificates = []tls.Certificate{pair}
	for who, c := range map[string]struct {
		peer rpc.Peer
		want fault.Kind
	}{
		"without a certificate":                   {rpc.Peer{Room: "gateway", TLS: w.tls}, fault.Unauthenticated},
		"with a certificate of another authority": {rpc.Peer{Room: "gateway", TLS: forged}, fault.Unavailable},
		"without TLS":                             {rpc.Peer{Room: "gateway"}, fault.Unavailable},
	} {
		conn, err := rpc.Dial(w.apart["scheduler"], c.peer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = schedulerv1.NewEventServiceClient(conn).ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{})
		if !fault.Is(err, c.want) {
			t.Errorf("a gateway %s: %v", who, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// authority signs certificates.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	a := &authority{dir: dir, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Forge's authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.key = newKey(t)
	a.file = a.sign(t, "authority", a.cert, a.key)
	return a
}

// trusted is how those call who believe this authority and have no certificate.
func (a *authority) trusted() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}

// certify makes a room's certificate, for both directions, and returns the files.
func (a *authority) certify(t testing.TB, room string) (cert, key string) {
	t.Helper()
	private := newKey(t)
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key = a.write(t, room+".key", "PRIVATE KEY", text)
	return a.sign(t, room, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: room},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, private), key
}

func (a *authority) sign(t testing.TB, name string, cert *x509.Certificate, key *ecdsa.PrivateKey) (file string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if cert == a.cert {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	return a.write(t, name+".crt", "CERTIFICATE", der)
}

func (a *authority) write(t testing.TB, name, kind string, der []byte) (path string) {
	t.Helper()
	path = filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
