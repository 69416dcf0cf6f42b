package gateway

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-github/v62/github"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

const (
	refreshEvery = time.Hour
	refreshRetry = time.Minute
)

// firstRanges are the hooks ranges of api.github.com/meta in November 2026, until
// GitHub has been asked.
var firstRanges = []string{"192.30.252.0/22", "185.199.108.0/22", "140.82.112.0/20", "143.55.64.0/20", "2a0a:a440::/29", "2606:50c0::/32"}

// allowlist holds the addresses from which webhooks are accepted.
type allowlist struct {
	any     bool
	allowed []netip.Prefix
	proxies []netip.Prefix

	github  *github.Client // nil: GitHub's own ranges are not asked for
	ranges  atomic.Pointer[[]netip.Prefix]
	store   *store
	log     *slog.Logger
	refused metric.Int64Counter
}

// metaAnswer is the last good answer of /meta, as it is kept for the next start.
type metaAnswer struct {
	ETag  string   `json:"etag"`
	Hooks []string `json:"hooks"`
}

func newAllowlist(deps Deps, store *store) (*allowlist, error) {
	l := &allowlist{store: store, log: deps.Log}
	var err error
	l.refused, err = deps.Meter.Meter("forge/gateway").Int64Counter("forge.gateway.refused_sources",
		metric.WithDescription("Deliveries refused because of their source address."))
	if err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	l.ranges.Store(&[]netip.Prefix{})
	for _, entry := range deps.Webhook.AllowedIPs {
		switch entry {
		case "any":
			l.any = true
		case "github":
			client, err := metaClient(deps)
			if err != nil {
				return nil, err
			}
			first, err := prefixes(firstRanges)
			if err != nil {
				return nil, err
			}
			l.github = client
			l.ranges.Store(&first)
		default:
			allowed, err := prefixes([]string{entry})
			if err != nil {
				return nil, fmt.Errorf("FORGE_WEBHOOK_ALLOWED_IPS: %w; use github, any or addresses like 10.0.0.0/8", err)
			}
			l.allowed = append(l.allowed, allowed...)
		}
	}
	if l.proxies, err = prefixes(deps.Webhook.TrustedProxies); err != nil {
		return nil, fmt.Errorf("FORGE_TRUSTED_PROXIES: %w; use addresses like 10.0.0.0/8", err)
	}
	return l, nil
}

// metaClient asks without a token: the App's key is config's alone.
func metaClient(deps Deps) (*github.Client, error) {
	root, err := url.Parse(strings.TrimSuffix(cmp.Or(deps.GitHub.APIURL, "https://api.github.com"), "/") + "/")
	if err != nil {
		return nil, fmt.Errorf("FORGE_GITHUB_API_URL: %w", err)
	}
	transport := kitgithub.NewTransport()
	transport.DisableKeepAlives = true // one call an hour
	client := github.NewClient(&http.Client{Timeout: 30 * time.Second, Transport: transport})
	client.BaseURL = root
	return client, nil
}

// prefixes parses addresses and ranges of addresses.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var parsed []netip.Prefix
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			parsed = append(parsed, netip.PrefixFrom(plainAddr(addr), plainAddr(addr).BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no range of addresses", text)
		}
		parsed = append(parsed, prefix.Masked())
	}
	return parsed, nil
}

// run keeps GitHub's ranges true. The last list that GitHub gave stays in use
// while it gives none.
func (l *allowlist) run(ctx context.Context) error {
	if l.github == nil {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		pause := refreshEvery
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			pause = refreshRetry
			l.log.WarnContext(ctx, "reading GitHub's addresses failed; the last list stays in use", "retry_in", pause, "error", err)
		}
		timer.Reset(pause)
	}
}

// refresh asks GitHub, which answers 304 for nothing where its list is as it was.
func (l *allowlist) refresh(ctx context.Context) error {
	name := "the addresses of " + l.github.BaseURL.String()
	var last metaAnswer
	if err := l.store.recall(ctx, name, &last); err != nil {
		return err
	}
	if ranges, err := prefixes(last.Hooks); err == nil && len(ranges) > 0 {
		l.ranges.Store(&ranges)
	}
	req, err := l.github.NewRequest(http.MethodGet, "meta", nil)
	if err != nil {
		return fmt.Errorf("ask GitHub for its addresses: %w", err)
	}
	if last.ETag != "" {
		req.Header.Set("If-None-Match", last.ETag)
	}
	var meta metaAnswer
	resp, err := l.github.Do(ctx, req, &meta)
	if resp != nil && resp.StatusCode == http.StatusNotModified {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask GitHub for its addresses: %w", err)
	}
	ranges, err := prefixes(meta.Hooks)
	if err != nil {
		return fmt.Errorf("GitHub's addresses: %w", err)
	}
	if len(ranges) == 0 {
		return fmt.Errorf("%s names no addresses of webhooks: set FORGE_WEBHOOK_ALLOWED_IPS to this GitHub's addresses, or to any", l.github.BaseURL)
	}
	l.ranges.Store(&ranges)
	meta.ETag = resp.Header.Get("ETag")
	return l.store.note(ctx, name, meta)
}

// check is nil for a webhook that may come from peer, host:port, with these
// headers. It counts and logs those that may not.
func (l *allowlist) check(ctx context.Context, peer string, header func(name string) []string) error {
	if l.any {
		return nil
	}
	client, err := l.client(peer, header)
	if err == nil && l.has(client) {
		return nil
	}
	l.refused.Add(ctx, 1)
	if err != nil {
		l.log.WarnContext(ctx, "delivery refused: reading the address of its sender failed", "peer", peer, "error", err)
	} else {
		l.log.WarnContext(ctx, "delivery refused: FORGE_WEBHOOK_ALLOWED_IPS does not name its sender", "client", client)
	}
	return errAddressNotAllowed
}

var errAddressNotAllowed = status.Error(codes.PermissionDenied, "webhooks are not accepted from this address")

func (l *allowlist) has(addr netip.Addr) bool {
	return within(l.allowed, addr) || within(*l.ranges.Load(), addr)
}

// client is the address that a request comes from. Each proxy appends whom it heard, so
// the last entry that is no proxy of ours is the client; what stands before it is
// the client's own claim. A proxy that writes one of the two headers passes the
// other on as the client sent it, so where both are there they must agree.
func (l *allowlist) client(peer string, header func(name string) []string) (netip.Addr, error) {
	direct, err := netip.ParseAddrPort(peer)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address of the peer: %w", err)
	}
	client := plainAddr(direct.Addr())
	if !within(l.proxies, client) {
		return client, nil
	}
	chains, err := forwardedBy(header)
	if err != nil {
		return netip.Addr{}, err
	}
	var found []netip.Addr
	for name, chain := range chains {
		addr := client
		for _, hop := range slices.Backward(chain) {
			if !within(l.proxies, addr) {
				break
			}
			if !hop.IsValid() {
				return netip.Addr{}, fmt.Errorf("%s: an entry that counts is no address: %q", name, header(name))
			}
			addr = hop
		}
		found = append(found, addr)
	}
	switch {
	case len(found) == 0:
		return client, nil
	case len(found) == 2 && found[0] != found[1]:
		return netip.Addr{}, fmt.Errorf("X-Forwarded-For and Forwarded name two clients: %v", found)
	}
	return found[0], nil
}

func within(ranges []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) })
}
