package signin

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// longestName bounds the name of a token, in characters.
const longestName = 100

// fresh is a token that is not stored yet, and its secret.
func (s *Service) fresh(name string, life time.Duration) (t Token, secret string, err error) {
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > longestName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return Token{}, "", fault.Newf(fault.Invalid, "a token's name has 1 to %d characters, in one line", longestName)
	}
	if life < 0 || life > LongestToken {
		return Token{}, "", fault.New(fault.Invalid, "a token is good for a year at most")
	}
	if life == 0 {
		life = defaultTokenLife
	}
	now := s.deps.Now()
	return Token{ID: strings.ToLower(rand.Text()), Name: name, Made: now, Ends: now.Add(life)}, TokenPrefix + rand.Text() + rand.Text(), nil
}

// defaultTokenLife is how long a token is good where nobody says.
const defaultTokenLife = 90 * 24 * time.Hour

// MakeToken makes a token for a person; its secret is told this once. 0 is 90 days.
func (s *Service) MakeToken(ctx context.Context, v Viewer, name string, life time.Duration) (Token, string, error) {
	t, secret, err := s.fresh(name, life)
	if err == nil {
		err = s.store.write(ctx, "store a token", s.audited(schedulerv1.AuditEntry_ACTION_CREATE_TOKEN, v.Login, subjectOf(t.Name), addToken(t, hashOf(secret), v.ID)))
		s.handOver()
	}
	if err != nil {
		return Token{}, "", err
	}
	s.deps.Log.InfoContext(ctx, "a token was made", "login", v.Login, "token", t.ID)
	return t, secret, nil
}

// Tokens are a person's, the newest first.
func (s *Service) Tokens(ctx context.Context, v Viewer) ([]Token, error) {
	return s.store.tokens(ctx, v.ID, s.deps.Now())
}

// DeleteToken ends a token of a person's.
func (s *Service) DeleteToken(ctx context.Context, v Viewer, id string) error {
	var name string
	err := s.store.write(ctx, "delete a token", func(ctx context.Context, tx *sql.Tx) (err error) {
		if name, err = deleteToken(ctx, tx, v.ID, id); err != nil {
			return err
		}
		return s.audited(schedulerv1.AuditEntry_ACTION_DELETE_TOKEN, v.Login, subjectOf(name), nothing)(ctx, tx)
	})
	s.handOver()
	return err
}

// subjectOf is a token as the audit log names it.
func subjectOf(name string) string { return "personal token " + name }

func nothing(context.Context, *sql.Tx) error { return nil }

// Sessions are a person's browsers.
func (s *Service) Sessions(ctx context.Context, v Viewer) ([]Session, error) {
	return s.store.sessions(ctx, v.ID, v.secret, s.deps.Now(), s.deps.Idle)
}

// End ends what a request shows: a token, or a session.
func (s *Service) End(ctx context.Context, v Viewer) error {
	table := "personal_tokens"
	if v.CSRF != "" {
		table = "sessions"
	}
	return s.signedOut(ctx, v, v.Credential, "DELETE FROM "+table+" WHERE hash = $1", v.secret)
}

// signedOut ends what a person has shown, and writes that down.
func (s *Service) signedOut(ctx context.Context, v Viewer, subject, statement string, arg any) error {
	err := s.store.write(ctx, "sign out", func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, statement, arg)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 || v.ID == 0 {
			return err // it had ended before
		}
		return s.audited(schedulerv1.AuditEntry_ACTION_SIGN_OUT, v.Login, subject, nothing)(ctx, tx)
	})
	s.handOver()
	return err
}
