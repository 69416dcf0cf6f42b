// Package github is the one way to talk to GitHub: go-github clients that carry
// a token, renew it once after a 401, read again what a hiccup of GitHub cut
// off, and leave a span; and Classify, which says what an error means.
//
// Calls return go-github's errors. A call that changes something is sent once:
// whether to send it again is decided by who keeps the state.
package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TokenSource gives the installation token of a client's calls.
type TokenSource interface {
	// Token returns a token that is good for some time yet.
	Token(ctx context.Context) (string, error)
	// Expire says that GitHub answered 401 to this token: the next Token must be
	// another one.
	Expire(token string)
}

// TokenLag is how long GitHub may not know everywhere what a new token allows.
// People report a few seconds.
const TokenLag = 30 * time.Second

// Config says where GitHub is and who calls. Only Tokens is needed, and not by
// NewApp.
type Config struct {
	// APIURL is the root of the REST API, "" for https://api.github.com; of an
	// Enterprise Server it ends in /api/v3.
	APIURL string
	Tokens TokenSource
	// JustMade reports whether a token is so new that GitHub may not know everywhere
	// yet what it allows. That it is not allowed something is Unavailable then. nil:
	// no token is.
	JustMade  func(token string) bool
	Tracer    trace.TracerProvider
	Log       *slog.Logger
	UserAgent string
	// Base carries the requests, nil for a NewTransport. Clients that share one
	// share its connections.
	Base http.RoundTripper
}

// New is a client that calls with the tokens of cfg.Tokens.
func New(cfg Config) (*github.Client, error) {
	if cfg.Tokens == nil {
		return nil, errors.New("GitHub client: no token source")
	}
	cfg = cfg.withDefaults()
	root, err := apiRoot(cfg.APIURL)
	if err != nil {
		return nil, err
	}
	return cfg.client(root, &authTransport{host: root.Host, tokens: cfg.Tokens, justMade: cfg.JustMade, log: cfg.Log, next: cfg.transport()}), nil
}

// NewApp is a client that calls as the App itself, with a JWT of a minute and a
// half. Only what concerns the App and its installations answers to it.
func NewApp(cfg Config, app App) (*github.Client, error) {
	cfg = cfg.withDefaults()
	root, err := apiRoot(cfg.APIURL)
	if err != nil {
		return nil, err
	}
	if app.ID <= 0 {
		return nil, fmt.Errorf("the App's id is a positive number, not %d: it is on the App's settings page under 'About'", app.ID)
	}
	signing, err := newAppTransport(cfg, app)
	if err != nil {
		return nil, err
	}
	return cfg.client(root, signing), nil
}

func (cfg Config) withDefaults() Config {
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "forge")
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.Tracer == nil {
		cfg.Tracer = noop.NewTracerProvider()
	}
	if cfg.Base == nil {
		cfg.Base = NewTransport()
	}
	return cfg
}

// headerWait bounds one attempt until the answer begins. What follows may stream
// for as long as the caller's context allows.
const headerWait = 30 * time.Second

// NewTransport is an HTTP transport fit for GitHub, to be shared by clients.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: headerWait,
	}
}

func (cfg Config) transport() http.RoundTripper {
	return &retryTransport{
		log: cfg.Log,
		next: otelhttp.NewTransport(cfg.Base,
			otelhttp.WithTracerProvider(cfg.Tracer),
			otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator()), // GitHub has no use for our ids
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "GitHub: " + describe(r) }),
			// The address would show in the span.
			otelhttp.WithFilter(func(r *http.Request) bool { return !toSignedLink(r) }),
		),
	}
}

func (cfg Config) client(root *url.URL, transport http.RoundTripper) *github.Client {
	client := github.NewClient(&http.Client{Transport: transport})
	client.UserAgent = cfg.UserAgent
	client.BaseURL, client.UploadURL = root, root
	return client
}

func apiRoot(address string) (*url.URL, error) {
	root, err := url.Parse(strings.TrimSuffix(cmp.Or(address, "https://api.github.com"), "/") + "/")
	if err != nil || root.Host == "" || (root.Scheme != "http" && root.Scheme != "https") {
		return nil, fmt.Errorf("GitHub API URL %q: expected something like https://github.example.com/api/v3", address)
	}
	return root, nil
}
