package reporter

import (
	"context"
	"fmt"
	"sync"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// tokenSpare is how long a token that is used lasts at least.
const tokenSpare = 2 * time.Minute

// tokenCache is the installation tokens that config made for this room, one per
// repository, each while it lasts.
type tokenCache struct {
	config configv1.TokenServiceClient
	now    func() time.Time

	mu   sync.Mutex
	kept map[tokenKey]keptToken
}

type tokenKey struct{ installation, repository int64 }

type keptToken struct {
	text    string
	expires time.Time
}

func (ts *tokenCache) get(key tokenKey) string {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if one := ts.kept[key]; one.expires.Sub(ts.now()) > tokenSpare {
		return one.text
	}
	return ""
}

func (ts *tokenCache) keep(key tokenKey, one keptToken) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for old, other := range ts.kept {
		if other.expires.Sub(ts.now()) <= tokenSpare {
			delete(ts.kept, old)
		}
	}
	ts.kept[key] = one
}

// drop forgets the tokens that a repository, or all of an installation (0), had.
func (ts *tokenCache) drop(installation, repository int64) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for key := range ts.kept {
		if key.installation == installation && (repository == 0 || key.repository == repository) {
			delete(ts.kept, key)
		}
	}
}

// source is the token source of one try.
type source struct {
	tokens  *tokenCache
	request *configv1.CreateTokenRequest
	token   string
	old     bool // the token was there before the try
}

func (ts *tokenCache) source(t target) *source {
	return &source{tokens: ts, request: &configv1.CreateTokenRequest{Repository: t.repository, InstallationId: t.installationID}}
}

func (s *source) key() tokenKey {
	return tokenKey{s.request.GetInstallationId(), s.request.GetRepository().GetId()}
}

// Token is the token of the try, another one after Expire.
func (s *source) Token(ctx context.Context) (string, error) {
	if s.token != "" {
		return s.token, nil
	}
	if s.request.GetRejectedToken() == "" {
		if s.token = s.tokens.get(s.key()); s.token != "" {
			s.old = true
			return s.token, nil
		}
	}
	resp, err := s.tokens.config.CreateToken(ctx, s.request)
	switch {
	case fault.Is(err, fault.Conflict):
		return "", &suspendedError{err}
	case err != nil:
		return "", fmt.Errorf("no token for GitHub: %w", err)
	}
	s.token, s.old = resp.GetToken(), false
	s.tokens.keep(s.key(), keptToken{s.token, resp.GetExpireTime().AsTime()})
	return s.token, nil
}

// Expire has the next Token be another one.
func (s *source) Expire(token string) {
	s.tokens.drop(s.request.GetInstallationId(), s.request.GetRepository().GetId())
	s.token, s.request.RejectedToken = "", token
}

// suspendedError says that the installation is suspended.
type suspendedError struct{ cause error }

func (e *suspendedError) Error() string { return e.cause.Error() }
func (e *suspendedError) Unwrap() error { return e.cause }
