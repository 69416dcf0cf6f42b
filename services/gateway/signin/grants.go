package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// askWithin bounds a question to GitHub that somebody waits for.
	askWithin = 10 * time.Second
	// early is how long before its end a token is refreshed.
	early = 5 * time.Minute
	// refreshLease is how long one refresh may take before another is tried.
	refreshLease = 20 * time.Second
	// refreshPause is how often one who waits for another's refresh looks.
	refreshPause = 100 * time.Millisecond
)

// tokens are what GitHub has handed out for a person, as they are encrypted.
type tokens struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh,omitempty"`
}

// grantSlot is where the tokens of a person have their place.
type grantSlot int64

func (g grantSlot) Bytes() []byte {
	return []byte("forge person\x00" + strconv.FormatInt(int64(g), 10))
}

// signInAgain is what somebody is told whom GitHub no longer lets Forge ask for.
func signInAgain() error {
	return fault.New(fault.Unauthenticated, "GitHub no longer lets Forge ask what you may see: sign in again")
}

// unsure is what is said where GitHub cannot be asked.
func unsure(err error) error {
	return fault.Newf(fault.Unavailable, "GitHub does not say what you may see, so it is not shown; try again in a moment: %w", err)
}

// granted makes a grant of what GitHub has handed out.
func (s *asker) granted(person int64, login string, token *oauth2.Token) (grant, error) {
	text, err := json.Marshal(tokens{token.AccessToken, token.RefreshToken})
	if err != nil {
		return grant{}, fmt.Errorf("tokens of %s: %w", login, err)
	}
	g := grant{person: person, login: login}
	// By the clock of this service, which the token's Expiry is not.
	switch seconds := token.Extra("expires_in").(type) {
	case int64:
		g.ends = s.deps.Now().Add(time.Duration(seconds) * time.Second)
	case float64:
		g.ends = s.deps.Now().Add(time.Duration(seconds) * time.Second)
	}
	g.keyID, g.sealed, err = s.ring.Seal(grantSlot(person), string(text))
	return g, err
}

func (s *asker) open(g grant) (t tokens, err error) {
	if len(g.sealed) == 0 {
		return tokens{}, signInAgain()
	}
	text, err := s.ring.Open(grantSlot(g.person), g.keyID, g.sealed)
	if err == nil {
		err = json.Unmarshal([]byte(text), &t)
	}
	if err != nil {
		s.deps.Log.Warn("the tokens of a person cannot be decrypted; they have to sign in again", "login", g.login, "error", err)
		return tokens{}, signInAgain()
	}
	return t, nil
}

// token is one with which GitHub is asked as a person, and not the one that GitHub has
// refused.
func (s *asker) token(ctx context.Context, person int64, refused string) (string, error) {
	g, t, err := s.read(ctx, person)
	if err != nil {
		return "", err
	}
	if t.Access != refused && !s.ending(g) {
		return t.Access, nil
	}
	if t.Refresh == "" {
		if t.Access == refused {
			return "", s.end(ctx, g)
		}
		return t.Access, nil
	}
	// Who asks may give up; the refresh goes on, since its token is good once.
	done := s.once.DoChan(strconv.FormatInt(person, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshLease)
		defer cancel()
		return s.refresh(ctx, g, t)
	})
	select {
	case <-ctx.Done():
		return "", unsure(ctx.Err())
	case result := <-done:
		fresh, _ := result.Val.(string)
		if result.Err == nil && fresh == refused {
			return "", s.end(ctx, g)
		}
		return fresh, result.Err
	}
}

func (s *asker) read(ctx context.Context, person int64) (grant, tokens, error) {
	g, err := s.store.grant(ctx, person)
	if fault.Is(err, fault.NotFound) {
		return grant{}, tokens{}, signInAgain()
	}
	if err != nil {
		return grant{}, tokens{}, err
	}
	t, err := s.open(g)
	return g, t, err
}

func (s *asker) ending(g grant) bool {
	return !g.ends.IsZero() && !s.deps.Now().Before(g.ends.Add(-early))
}

// end notes that GitHub has taken a grant back.
func (s *asker) end(ctx context.Context, g grant) error {
	if err := s.store.renew(ctx, g, grant{}); err != nil {
		return err
	}
	s.deps.Log.InfoContext(ctx, "GitHub no longer takes the tokens of a person; they have to sign in again", "login", g.login)
	return signInAgain()
}

// refresh trades a refresh token in, once among all replicas, and returns the token
// that is good then.
func (s *asker) refresh(ctx context.Context, g grant, t tokens) (string, error) {
	for version := g.version; ; {
		now := s.deps.Now()
		mine, err := s.store.lease(ctx, g, now, now.Add(refreshLease))
		if err != nil {
			return "", err
		}
		if mine {
			return s.trade(ctx, g, t)
		}
		if g, t, err = s.read(ctx, g.person); err != nil {
			return "", err
		}
		if g.version != version {
			return t.Access, nil
		}
		select {
		case <-ctx.Done():
			return "", unsure(ctx.Err())
		case <-time.After(refreshPause):
		}
	}
}

func (s *asker) trade(ctx context.Context, g grant, t tokens) (string, error) {
	fresh, err := s.oauth.TokenSource(s.toGitHub(ctx), &oauth2.Token{RefreshToken: t.Refresh}).Token()
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == "bad_refresh_token":
		return "", s.end(ctx, g)
	case err != nil:
		err = hideSecrets(err)
		s.deps.Log.WarnContext(ctx, "refreshing a token failed", "login", g.login, "error", err)
		if err := s.store.release(ctx, g); err != nil {
			return "", err
		}
		if !g.ends.IsZero() && s.deps.Now().Before(g.ends) {
			return t.Access, nil // good for a while yet
		}
		return "", unsure(err)
	}
	after, err := s.granted(g.person, g.login, fresh)
	if err == nil {
		err = s.store.renew(ctx, g, after)
	}
	if err != nil {
		return "", err
	}
	return fresh.AccessToken, nil
}

// toGitHub has package oauth2 ask through the client of this service.
func (s *asker) toGitHub(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, s.client)
}

// hideSecrets is an error without the answer that it quotes, which may hold tokens.
func hideSecrets(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return err
	}
	if answer.ErrorCode == "" {
		return fmt.Errorf("GitHub answers %s", answer.Response.Status)
	}
	return fmt.Errorf("GitHub answers %s: %s", answer.ErrorCode, answer.ErrorDescription)
}
