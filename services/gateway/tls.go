package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// TLS says where the certificate of the HTTP edge comes from: a pair of files,
// which are read again when they change, or an ACME authority. The zero value is
// plain HTTP, for behind a load balancer.
type TLS struct {
	Cert, Key string // PEM files

	Domains   []string // names to get certificates for; the authority calls back at port 443
	Cache     string   // directory where they are kept, with the account's key
	Authority string   // ACME directory; "": Let's Encrypt
}

func (t TLS) enabled() bool { return t.Cert != "" || t.Key != "" || len(t.Domains) > 0 }

// config returns nil for plain HTTP.
func (t TLS) config(log *slog.Logger, now func() time.Time) (*tls.Config, error) {
	switch {
	case !t.enabled():
		return nil, nil //nolint:nilnil // nil is net/http's own word for no TLS
	case len(t.Domains) > 0 && (t.Cert != "" || t.Key != ""):
		return nil, errors.New("FORGE_ACME_DOMAINS and FORGE_HTTPS_CERT exclude each other: a certificate is either got or given")
	case len(t.Domains) > 0:
		manager := &autocert.Manager{
			Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(t.Cache), HostPolicy: autocert.HostWhitelist(t.Domains...),
		}
		if t.Authority != "" {
			manager.Client = &acme.Client{DirectoryURL: t.Authority}
		}
		config := manager.TLSConfig()
		config.MinVersion = tls.VersionTLS12
		return config, nil
	case t.Cert == "" || t.Key == "":
		return nil, errors.New("FORGE_HTTPS_CERT and FORGE_HTTPS_KEY go together: set both")
	}
	c := &certificate{files: [2]string{t.Cert, t.Key}, log: log, now: now}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// statEvery is how often the files of a certificate are looked at, at most.
const statEvery = time.Second

// certificate is what two files hold. A pair that cannot be read, as while it is
// being replaced, leaves the one before in use.
type certificate struct {
	files [2]string
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	pair    *tls.Certificate
	statted time.Time
	stamps  [2]stamp // of the files when pair was read, or could not be
}

// stamp tells one state of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.statted) >= statEvery {
		c.statted = now
		c.refresh(hello.Context())
	}
	return c.pair, nil
}

func (c *certificate) refresh(ctx context.Context) {
	if stamps, err := c.stat(); err != nil || stamps == c.stamps {
		return // not there for a moment, or as before
	}
	if err := c.load(); err != nil {
		c.log.ErrorContext(ctx, "reading the new certificate failed; the one before stays in use", "error", err)
		return
	}
	c.log.InfoContext(ctx, "certificate read again", "file", c.files[0], "valid_until", c.pair.Leaf.NotAfter)
}

func (c *certificate) load() error {
	stamps, err := c.stat()
	if err != nil {
		return fmt.Errorf("FORGE_HTTPS_CERT and FORGE_HTTPS_KEY: %w", err)
	}
	c.stamps = stamps
	pair, err := tls.LoadX509KeyPair(c.files[0], c.files[1])
	if err != nil {
		return fmt.Errorf("FORGE_HTTPS_CERT and FORGE_HTTPS_KEY: %w", err)
	}
	c.pair = &pair
	return nil
}

func (c *certificate) stat() (stamps [2]stamp, err error) {
	for i, name := range c.files {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, err
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

// shown is the certificate that a caller was shown last, wherever it came from.
type shown struct {
	last atomic.Pointer[tls.Certificate]
}

// watch takes note of what config shows.
func (s *shown) watch(config *tls.Config) {
	get := config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := get(hello)
		// What answers an authority's question about a name is no certificate of ours.
		if err == nil && !slices.Contains(hello.SupportedProtos, acme.ALPNProto) {
			s.last.Store(pair)
		}
		return pair, err
	}
}

// until is when it ends, the zero time where none was shown.
func (s *shown) until() time.Time {
	pair := s.last.Load()
	if pair == nil || pair.Leaf == nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter
}
