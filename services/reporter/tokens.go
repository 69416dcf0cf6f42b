package reporter

import (
	"context"
	"fmt"
	"sync"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// tokenSpare is how long a token that is used lasts at least.
const tokenSpare = 2 * time.Minute

// tokenCache has the installation tokens that config made for this room, one per
// repository, each while it lasts.
type tokenCache struct {
	config configv1.TokenServiceClient
	now    func() time.Time

	mu     sync.Mutex
	tokens map[tokenKey]cachedToken
}

type tokenKey struct{ installation, repository int64 }

type cachedToken struct {
	text    string
	since   time.Time
	expires time.Time
}

// tokenLife is how long GitHub has an installation token last.
// https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app
const tokenLife = time.Hour

func (c *tokenCache) get(key tokenKey) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.tokens[key]; one.expires.Sub(c.now()) > tokenSpare {
		return one.text
	}
	return ""
}

func (c *tokenCache) put(key tokenKey, one cachedToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, other := range c.tokens {
		if other.expires.Sub(c.now()) <= tokenSpare {
			delete(c.tokens, old)
		}
	}
	c.tokens[key] = one
}

// drop forgets the tokens that a repository, or all of an installation (0), had.
func (c *tokenCache) drop(installation, repository int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.tokens {
		if key.installation == installation && (repository == 0 || key.repository == repository) {
			delete(c.tokens, key)
		}
	}
}

// tokenSource gives the token of one attempt.
type tokenSource struct {
	cache   *tokenCache
	request *configv1.CreateTokenRequest
	token   string
	cached  bool // the token was there before the attempt
}

func (c *tokenCache) sourceFor(t target) *tokenSource {
	return &tokenSource{cache: c, request: &configv1.CreateTokenRequest{Repository: t.repository, InstallationId: t.installationID}}
}

func (s *tokenSource) key() tokenKey {
	return tokenKey{s.request.GetInstallationId(), s.request.GetRepository().GetId()}
}

// Token is the token of the attempt, another one after Expire.
func (s *tokenSource) Token(ctx context.Context) (string, error) {
	if s.token != "" {
		return s.token, nil
	}
	if s.request.GetRejectedToken() == "" {
		if s.token = s.cache.get(s.key()); s.token != "" {
			s.cached = true
			return s.token, nil
		}
	}
	resp, err := s.cache.config.CreateToken(ctx, s.request)
	switch {
	case fault.Is(err, fault.Conflict):
		return "", &suspendedError{err}
	case err != nil:
		return "", fmt.Errorf("no token for GitHub: %w", err)
	}
	s.token, s.cached = resp.GetToken(), false
	s.cache.put(s.key(), cachedToken{s.token, s.cache.now(), resp.GetExpireTime().AsTime()})
	return s.token, nil
}

// Expire has the next Token be another one.
func (s *tokenSource) Expire(token string) {
	s.cache.drop(s.request.GetInstallationId(), s.request.GetRepository().GetId())
	s.token, s.request.RejectedToken = "", token
}

// justMade reports whether the token is not older than TokenLag of kit/github. Config does not
// say so: the token is new here, and almost all of its life is left.
func (s *tokenSource) justMade(token string) bool {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	one, now := s.cache.tokens[s.key()], s.cache.now()
	left := one.expires.Sub(now)
	return one.text == token && now.Sub(one.since) < kitgithub.TokenLag && (left-tokenLife).Abs() < tokenSpare
}

// suspendedError says that the installation is suspended.
type suspendedError struct{ cause error }

func (e *suspendedError) Error() string { return e.cause.Error() }
func (e *suspendedError) Unwrap() error { return e.cause }
