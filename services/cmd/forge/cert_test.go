package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSelfSignedCertificateServesItsHosts(t *testing.T) {
	dir := t.TempDir()
	s := selfSigned{Host: []string{"forge.test", "127.0.0.1"}, Dir: dir, For: time.Hour}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(dir+"/forge-cert.pem", dir+"/forge-key.pem")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for _, host := range s.Host {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if info, err := os.Stat(dir + "/forge-key.pem"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	if err := s.Run(); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second time: %v", err)
	}
}
