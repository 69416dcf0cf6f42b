package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type cert struct {
	SelfSigned selfSigned `cmd:"" help:"Make a certificate that nobody vouches for, to try out HTTPS."`
}

type selfSigned struct {
	Host []string      `default:"localhost,127.0.0.1,::1" help:"Names and addresses it is for."`
	Dir  string        `default:"." help:"Where forge-cert.pem and forge-key.pem are written."`
	For  time.Duration `default:"2160h" help:"How long it is valid."`
}

// Run writes the pair and says what it is good for.
func (s selfSigned) Run() error {
	certFile, keyFile := filepath.Join(s.Dir, "forge-cert.pem"), filepath.Join(s.Dir, "forge-key.pem")
	certificate, key, err := s.make(time.Now())
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}
	if err := create(keyFile, key, 0o600); err != nil {
		return err
	}
	if err := create(certFile, certificate, 0o644); err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	_, err = fmt.Fprintf(os.Stdout, `Wrote %[1]s and %[2]s. Use them with

  forge up --https-cert %[1]s --https-key %[2]s

WARNING: nobody vouches for this certificate. GitHub delivers webhooks to it only with "SSL verification" switched off in the
App's settings, and then whoever sits between GitHub and Forge can read and forge what they send. It is for trying out, never
for a Forge that deploys: there use a certificate of your own, or FORGE_ACME_DOMAINS.
`, certFile, keyFile)
	return err
}

func (s selfSigned) make(now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Forge, self-signed"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(s.For), // clocks differ
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range s.Host {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	var certPEM, keyPEM bytes.Buffer
	err = errors.Join(
		pem.Encode(&certPEM, &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.Encode(&keyPEM, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	)
	return certPEM.Bytes(), keyPEM.Bytes(), err
}

// create writes a file that is not there yet.
func create(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: remove it, or choose another folder with --dir", path)
	}
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
