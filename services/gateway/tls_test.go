package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// writePair writes a certificate with this serial number, and its key.
func writePair(t *testing.T, files TLS, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		files.Cert: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	files := TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writePair(t, files, 1)
	clock := atomic.Int64{}
	config, err := files.config(kittest.Log(t), func() time.Time { return time.Unix(clock.Add(10), 0) })
	if err != nil {
		t.Fatal(err)
	}
	shown := func() int64 {
		pair, err := config.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	later := func() { // some file systems keep coarse times
		at := time.Now().Add(time.Duration(clock.Load()) * time.Second)
		os.Chtimes(files.Cert, at, at)
	}
	if got := shown(); got != 1 {
		t.Errorf("at first %d", got)
	}
	os.WriteFile(files.Cert, []byte("half a f"), 0o600)
	later()
	if got := shown(); got != 1 {
		t.Errorf("while it is written %d", got)
	}
	os.Remove(files.Key)
	if got := shown(); got != 1 {
		t.Errorf("while it is gone %d", got)
	}
	writePair(t, files, 2)
	later()
	if got := shown(); got != 2 {
		t.Errorf("after the change %d", got)
	}
}

func TestHTTPSWithHTTP2AndNothingOlderThanTLS12(t *testing.T) {
	dir := t.TempDir()
	files := TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writePair(t, files, 1)
	w := onSQLite(t, func(d *Deps) { d.TLS = files })
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- w.service.Serve(ctx, lis) }()
	pemCert, _ := os.ReadFile(files.Cert)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemCert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ForceAttemptHTTP2: true}
	large := bytes.Repeat([]byte("x"), maxPayload+1)
	for _, c := range []struct {
		hook hook
		code int
		says string
	}{
		{hook{event: "star", id: "t1", body: star}, 200, "{}"},
		{hook{event: "star", id: "t2", body: star, chunked: true}, 200, "{}"}, // of unsaid length
		{hook{event: "star", id: "t3", body: star, header: map[string]string{"X-Hub-Signature-256": "sha256=00"}}, 401, `"code":16`},
		{hook{event: "star", id: "t4", body: large}, 413, "larger than 25 MiB"},
		{hook{event: "star", id: "t5", body: large, chunked: true}, 413, "larger than 25 MiB"},
		{hook{event: "star", id: "t6", body: large[:maxPayload]}, 200, "{}"},
	} {
		resp, err := transport.RoundTrip(c.hook.request(t, "https://"+lis.Addr().String()))
		if err != nil {
			t.Fatalf("%s: %v", c.hook.id, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != c.code || !bytes.Contains(body, []byte(c.says)) {
			t.Errorf("%s: %s %s %s", c.hook.id, resp.Proto, resp.Status, body)
		}
	}
	if n := w.count(); n != 3 {
		t.Errorf("%d are kept", n)
	}
	transport.CloseIdleConnections()
	old := &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	if conn, err := tls.Dial("tcp", lis.Addr().String(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestTLSSettingsThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	for want, files := range map[string]TLS{
		"go together":        {Cert: "cert.pem"},
		"exclude each other": {Cert: "cert.pem", Key: "key.pem", Domains: []string{"forge.example"}},
		"no such file":       {Cert: dir + "/cert.pem", Key: dir + "/key.pem"},
	} {
		if _, err := files.config(kittest.Log(t), time.Now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", files, err, want)
		}
	}
	config, err := TLS{Domains: []string{"forge.example"}, Cache: dir}.config(kittest.Log(t), time.Now)
	if err != nil || config.MinVersion != tls.VersionTLS12 {
		t.Fatalf("ACME: %v, %v", config, err)
	}
	if _, err := config.GetCertificate(&tls.ClientHelloInfo{ServerName: "other.example"}); err == nil {
		t.Error("ACME gets certificates for any name")
	}
	if plain, err := (TLS{}).config(nil, nil); plain != nil || err != nil {
		t.Errorf("nothing set: %v, %v", plain, err)
	}
}
