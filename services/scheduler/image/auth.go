package image

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/egress"
)

const maxToken = 1 << 20 // bytes of the answer of a token service

// registryAuth answers for the images that registries have shown this build. Where a
// registry has a token service, Forge asks it, for those images alone: BuildKit gets no
// password, and does not follow a registry to whatever it calls its token service.
type registryAuth struct {
	auth.UnimplementedAuthServer

	build *shared
}

// Register is called by the session.
func (a *registryAuth) Register(server *grpc.Server) { auth.RegisterAuthServer(server, a) }

// credentials are those for a registry that has shown an image, and nobody's for another.
func (a *registryAuth) credentials(ctx context.Context, host string) (user, password string, err error) {
	if a.build.resolver.credentials == nil || len(a.build.repositories(host)) == 0 {
		return "", "", nil
	}
	if user, password, err = a.build.resolver.credentials(ctx, host); err != nil {
		return "", "", status.Error(codes.Internal, "the credentials of the registry cannot be read") // more would be in BuildKit's log
	}
	return user, password, nil
}

// Credentials are for registries that have no token service.
func (a *registryAuth) Credentials(ctx context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	user, password, err := a.credentials(ctx, hostOf(req.GetHost()))
	if err != nil {
		return nil, err
	}
	return &auth.CredentialsResponse{Username: user, Secret: password}, nil
}

// key stands for who shows these credentials: BuildKit keeps tokens, and gives them to
// those alone who have the same key.
func (a *registryAuth) key(ctx context.Context, host string, salt []byte) (ed25519.PrivateKey, error) {
	user, password, err := a.credentials(ctx, hostOf(host))
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, append(slices.Clone(a.build.resolver.seed), salt...))
	for _, part := range []string{a.build.salt, hostOf(host), user, password} {
		_, _ = io.WriteString(mac, part+"\x00") // a hash takes all
	}
	return ed25519.NewKeyFromSeed(mac.Sum(nil)), nil
}

// GetTokenAuthority says that tokens come from here.
func (a *registryAuth) GetTokenAuthority(ctx context.Context, req *auth.GetTokenAuthorityRequest) (*auth.GetTokenAuthorityResponse, error) {
	key, err := a.key(ctx, req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &auth.GetTokenAuthorityResponse{PublicKey: key[32:]}, nil
}

// VerifyTokenAuthority proves it.
func (a *registryAuth) VerifyTokenAuthority(ctx context.Context, req *auth.VerifyTokenAuthorityRequest) (*auth.VerifyTokenAuthorityResponse, error) {
	key, err := a.key(ctx, req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &auth.VerifyTokenAuthorityResponse{Signed: append(ed25519.Sign(key, req.GetPayload()), req.GetPayload()...)}, nil
}

// FetchToken asks a token service, for what this build may pull.
func (a *registryAuth) FetchToken(ctx context.Context, req *auth.FetchTokenRequest) (*auth.FetchTokenResponse, error) {
	host := hostOf(req.GetHost())
	scopes := a.allowed(host, req.GetScopes())
	if len(scopes) == 0 {
		return nil, status.Error(codes.PermissionDenied, "the build has no such image")
	}
	realm, err := url.Parse(req.GetRealm())
	if err != nil || realm.Scheme != "https" && (realm.Scheme != "http" || !plain(req.GetHost())) {
		return nil, status.Error(codes.PermissionDenied, "the token service of the registry has no address of https")
	}
	query := realm.Query()
	query.Set("service", req.GetService())
	query["scope"] = scopes
	realm.RawQuery = query.Encode()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, "the token service of the registry has no address")
	}
	user, password, err := a.credentials(ctx, host)
	if err != nil {
		return nil, err
	}
	if password != "" {
		ask.SetBasicAuth(user, password)
	}
	return token(a.build.resolver.transport, ask)
}

// token reads the answer. https://distribution.github.io/distribution/spec/auth/token/
func token(transport http.RoundTripper, ask *http.Request) (*auth.FetchTokenResponse, error) {
	resp, err := transport.RoundTrip(ask) // no redirect is followed, the password would go along
	switch {
	case errors.Is(err, egress.ErrPrivate):
		return nil, status.Error(codes.PermissionDenied, "the token service of the registry is not on the internet")
	case err != nil:
		return nil, status.Error(codes.Unavailable, "the token service of the registry does not answer")
	}
	defer resp.Body.Close() //nolint:errcheck // it was not written to
	if resp.StatusCode != http.StatusOK {
		return nil, status.Errorf(codes.PermissionDenied, "the token service of the registry answers %s", resp.Status)
	}
	var answer struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   int64     `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxToken)).Decode(&answer); err != nil {
		return nil, status.Error(codes.Unavailable, "the token service of the registry answers no token")
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	out := &auth.FetchTokenResponse{Token: answer.Token, ExpiresIn: answer.ExpiresIn}
	if !answer.IssuedAt.IsZero() {
		out.IssuedAt = answer.IssuedAt.Unix()
	}
	return out, nil
}

// plain reports whether a registry is spoken to without TLS, as one of loopback is.
func plain(host string) bool {
	registry, err := name.NewRegistry(host)
	return err == nil && registry.Scheme() == "http"
}

// allowed are of the scopes that are asked for those of this build's images, to read.
func (a *registryAuth) allowed(host string, asked []string) []string {
	var scopes []string
	for _, repository := range a.build.repositories(host) {
		scope := "repository:" + repository + ":pull"
		if slices.ContainsFunc(asked, func(s string) bool { return strings.HasPrefix(s, "repository:"+repository+":") }) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// repositories are those of a registry that have shown an image to this build, in order.
func (s *shared) repositories(host string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for shown := range s.shown {
		if shown.host == host {
			all = append(all, shown.repository)
		}
	}
	slices.Sort(all)
	return all
}

// repository of a registry.
type repository struct{ host, repository string }
