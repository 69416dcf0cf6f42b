package image_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/image"
)

// authority signs certificates, in files of a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.sign(t, "ca", &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forge"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	for i, name := range []string{"buildkit", "scheduler"} {
		a.sign(t, name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		})
	}
	return a
}

func (a *authority) sign(t *testing.T, name string, template *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) tls(name string) image.TLS {
	return image.TLS{CA: a.file("ca.pem"), Cert: a.file(name + ".pem"), Key: a.file(name + ".key")}
}

// Over TCP a daemon and Forge know each other: what a Dockerfile runs may reach the port.
func TestADaemonOverTCPIsSpokenToByCertificate(t *testing.T) {
	kittest.Require(t, "buildkitd")
	ours, strangers := newAuthority(t), newAuthority(t)
	address := "tcp://" + kittest.FreeAddress(t)
	kittest.StartBuildKit(t, t.TempDir(), "--addr="+address, "--tlscacert="+ours.file("ca.pem"), "--tlscert="+ours.file("buildkit.pem"), "--tlskey="+ours.file("buildkit.key"))
	if _, err := image.New(image.Config{URL: address}); err == nil || !strings.Contains(err.Error(), "FORGE_TLS_CERT") {
		t.Errorf("without a certificate: %v", err)
	}
	files := workspace{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
	for _, c := range []struct {
		tls  image.TLS
		want fault.Kind
	}{
		{ours.tls("scheduler"), -1},
		{strangers.tls("scheduler"), fault.Unavailable},
		{image.TLS{CA: ours.file("ca.pem"), Cert: strangers.file("scheduler.pem"), Key: strangers.file("scheduler.key")}, fault.Unavailable},
	} {
		b, err := image.New(image.Config{URL: address, TLS: c.tls, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Build(t.Context(), image.Request{Dockerfile: "Dockerfile", Context: ".", Tier: "1/merged", Gate: newGate(t, time.Now)}, files.on(t), io.Discard)
		b.Close()
		if c.want < 0 && err != nil || c.want >= 0 && !fault.Is(err, c.want) {
			t.Errorf("with %v: %s %v", c.tls, fault.KindOf(err), err)
		}
	}
}
