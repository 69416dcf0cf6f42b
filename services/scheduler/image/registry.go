package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/hashicorp/golang-lru/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	dialWithin    = 10 * time.Second
	answersWithin = 30 * time.Second // until a registry's headers
	idleFor       = 90 * time.Second
	// configsKept are configurations of images, a few KB each, which are by digest.
	configsKept = 512
	maxConfig   = 4 << 20
	tries       = 4
)

// egressTo dials what is on the internet, and the networks of one's own that are named:
// what is dialled counts, not the name that led there.
func egressTo(private []netip.Prefix) *http.Transport {
	dialer := &net.Dialer{Timeout: dialWithin, Control: func(_, address string, _ syscall.RawConn) error {
		dialled, err := netip.ParseAddrPort(address)
		if err != nil || !reachable(dialled.Addr(), private) {
			return egress.ErrPrivate
		}
		return nil
	}}
	return &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: dialWithin, ResponseHeaderTimeout: answersWithin,
		IdleConnTimeout: idleFor, MaxIdleConnsPerHost: 8, ForceAttemptHTTP2: true,
	}
}

func reachable(addr netip.Addr, private []netip.Prefix) bool {
	addr = addr.Unmap()
	if egress.Public(addr) {
		return true
	}
	for _, prefix := range private {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// resolver asks registries with the credentials of one build, and of no other.
type resolver struct {
	transport   http.RoundTripper
	configs     *lru.Cache[string, []byte] // by repository, digest and platform
	credentials func(ctx context.Context, host string) (user, password string, err error)
	retryAfter  time.Duration
	seed        []byte // of keys that stand for credentials
}

// hostOf is the registry's name as people write it.
func hostOf(registry string) string {
	switch registry {
	case "", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/":
		return "docker.io"
	}
	return registry
}

// auth is what this build shows to a registry.
func (r *resolver) auth(ctx context.Context, registry string) (authn.Authenticator, error) {
	if r.credentials == nil {
		return authn.Anonymous, nil
	}
	user, password, err := r.credentials(ctx, hostOf(registry))
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", hostOf(registry), err)
	}
	if user == "" && password == "" {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: user, Password: password}, nil
}

// resolved is an image that the registry has shown to this build.
type resolved struct {
	ref    name.Digest
	config []byte
}

// resolve asks the registry for an image, each time anew: that BuildKit has pulled it
// before, perhaps with another repository's credentials, opens it to nobody. What lies
// behind a digest never changes and is kept.
func (r *resolver) resolve(ctx context.Context, image string, platform *ocispec.Platform) (resolved, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return resolved{}, fault.Newf(fault.Invalid, "%q is not a name of an image", image)
	}
	auth, err := r.auth(ctx, ref.Context().RegistryStr())
	if err != nil {
		return resolved{}, err
	}
	options := r.options(ctx, auth)
	head, err := remote.Head(ref, options...)
	if err != nil && !answered(err) {
		return resolved{}, refusal("image "+image+" cannot be used", ref, err)
	}
	if err == nil && head.Digest.String() != "" {
		found := ref.Context().Digest(head.Digest.String())
		if config, ok := r.configs.Get(kept(found, platform)); ok {
			return resolved{found, config}, nil
		}
	}
	desc, err := remote.Get(ref, options...) // some registries answer no HEAD
	if err != nil {
		return resolved{}, refusal("image "+image+" cannot be used", ref, err)
	}
	found := ref.Context().Digest(desc.Digest.String())
	img, err := pick(desc, image, platform)
	if err != nil {
		return resolved{}, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return resolved{}, refusal("image "+image+" cannot be used", ref, err)
	}
	if len(config) > maxConfig {
		return resolved{}, fault.Newf(fault.Invalid, "image %s has a configuration of %d bytes", image, len(config))
	}
	r.configs.Add(kept(found, platform), config)
	return resolved{found, config}, nil
}

func kept(ref name.Digest, platform *ocispec.Platform) string {
	return ref.String() + " " + platforms.FormatAll(platformOr(platform))
}

func platformOr(platform *ocispec.Platform) ocispec.Platform {
	if platform == nil {
		return platforms.DefaultSpec()
	}
	return *platform
}

// pick is the image for a platform, where there are several.
func pick(desc *remote.Descriptor, image string, platform *ocispec.Platform) (v1.Image, error) {
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	match := platforms.Only(platformOr(platform))
	best := -1
	var others []string
	spec := func(i int) ocispec.Platform {
		p := manifest.Manifests[i].Platform
		return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
	}
	for i, m := range manifest.Manifests {
		if m.Platform == nil || !m.MediaType.IsImage() {
			continue
		}
		if p := spec(i); p.OS != "unknown" {
			others = append(others, platforms.Format(p))
		}
		if match.Match(spec(i)) && (best < 0 || match.Less(spec(i), spec(best))) {
			best = i
		}
	}
	if best < 0 {
		return nil, fault.Newf(fault.Invalid, "image %s is not there for %s: it is for %s", image, platforms.Format(platformOr(platform)), strings.Join(others, ", "))
	}
	return index.Image(manifest.Manifests[best].Digest)
}

// answered reports whether a registry has answered something else than a refusal, so
// that another way of asking may help.
func answered(err error) bool {
	failed, ok := errors.AsType[*transport.Error](err)
	return ok && failed.StatusCode != http.StatusUnauthorized && failed.StatusCode != http.StatusForbidden && failed.StatusCode != http.StatusTooManyRequests
}

// refusal says in plain words what a registry answered. One that is away may be asked
// again.
func refusal(what string, ref name.Reference, err error) error {
	host := hostOf(ref.Context().RegistryStr())
	if errors.Is(err, egress.ErrPrivate) {
		return fault.Newf(fault.Invalid, "%s: %s leads to an address that is not on the internet, and the server names no network of its own for it", what, host)
	}
	failed, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return fmt.Errorf("%s: %s does not answer as a registry should: %w", what, host, err)
	}
	switch code := failed.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fault.Newf(fault.Invalid, "%s: %s answers %d, it does not open %s to the credentials that this repository has for it", what, host, code, ref.Context().RepositoryStr())
	case code == http.StatusNotFound:
		return fault.Newf(fault.Invalid, "%s: %s has no such image, or does not show it to the credentials that this repository has for it", what, host)
	case code == http.StatusTooManyRequests:
		return fault.Newf(fault.Exhausted, "%s: %s answers 429, it wants fewer requests", what, host)
	case code >= 500:
		return fault.Newf(fault.Unavailable, "%s: %s answers %d", what, host, code)
	default:
		return fault.Newf(fault.Invalid, "%s: %s answers %d: %w", what, host, code, err)
	}
}

// options bound how often a registry is asked again.
func (r *resolver) options(ctx context.Context, auth authn.Authenticator) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(patient{r.transport}), remote.WithUserAgent("forge"),
		remote.WithRetryBackoff(remote.Backoff{Duration: r.retryAfter, Factor: 2, Jitter: 0.2, Steps: tries}),
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}
}
