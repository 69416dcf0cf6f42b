package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/forge-ci/forge/services/kit/rpc"
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
	certificate, key, err := rpc.SelfSigned("Forge, self-signed", s.Host, time.Now(), s.For)
	if err != nil {
		return err
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
