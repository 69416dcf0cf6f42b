package config

import (
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"
	lru "github.com/hashicorp/golang-lru/v2"

	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// clients are go-github clients, one for each repository. Each remembers GitHub's
// rate limit from its last call.
type clients struct {
	base   kitgithub.Config
	tokens *tokens
	cached *lru.Cache[tokenKey, *github.Client]
}

const cachedClients = 1000

func newClients(base kitgithub.Config, tokens *tokens) (*clients, error) {
	cached, err := lru.New[tokenKey, *github.Client](cachedClients)
	if err != nil {
		return nil, fmt.Errorf("cache of GitHub clients: %w", err)
	}
	return &clients{base: base, tokens: tokens, cached: cached}, nil
}

// client returns the client for config's own calls about a repository, for which
// there is a token. An error says why there is none.
func (c *clients) client(ctx context.Context, g grant) (*github.Client, error) {
	key, _, err := c.tokens.token(ctx, g)
	if err != nil {
		return nil, err
	}
	if client, ok := c.cached.Get(key); ok {
		return client, nil
	}
	cfg := c.base
	cfg.Tokens, cfg.JustMade = clientTokens{c.tokens, g}, c.tokens.justMade
	client, err := kitgithub.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("GitHub client of %s: %w", g.fullName(), err)
	}
	c.cached.Add(key, client)
	return client, nil
}

// clientTokens gives one of config's own clients its tokens.
type clientTokens struct {
	tokens *tokens
	grant  grant
}

func (s clientTokens) Token(ctx context.Context) (string, error) {
	_, shared, err := s.tokens.token(ctx, s.grant)
	return shared.text, err
}

func (s clientTokens) Expire(token string) { s.tokens.reject(token) }
