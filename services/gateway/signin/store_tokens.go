package signin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Token is a token that a person has made, without its secret.
type Token struct {
	ID               string
	Name             string
	Made, Seen, Ends time.Time
}

// Session is a browser that is signed in.
type Session struct {
	Agent            string
	Made, Seen, Ends time.Time
	Current          bool // the one that asks
}

func addToken(t Token, hash string, person int64) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM personal_tokens WHERE person = $1", person).Scan(&n); err != nil {
			return err
		}
		if n >= mostTokens {
			return fault.Newf(fault.Exhausted, "there are %d tokens of yours, which are the most: delete one", n)
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO personal_tokens (id, hash, person, name, made, seen, ends) VALUES ($1, $2, $3, $4, $5, 0, $6)",
			t.ID, hash, person, t.Name, sqldb.Micros(t.Made), sqldb.Micros(t.Ends))
		return err
	}
}

// tokens are a person's, the newest first.
func (s *store) tokens(ctx context.Context, person int64, now time.Time) ([]Token, error) {
	all, err := sqldb.Collect(ctx, s.db.Read(), func(row sqldb.Row) (t Token, err error) {
		var made, seen, ends int64
		err = row.Scan(&t.ID, &t.Name, &made, &seen, &ends)
		t.Made, t.Seen, t.Ends = sqldb.Time(made), sqldb.Time(seen), sqldb.Time(ends)
		return t, err
	}, "SELECT id, name, made, seen, ends FROM personal_tokens WHERE person = $1 AND ends > $2 ORDER BY made DESC, id", person, sqldb.Micros(now))
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("list tokens: %w", err))
	}
	return all, nil
}

// sessions are a person's, that used last first.
func (s *store) sessions(ctx context.Context, person int64, current string, now time.Time, idle time.Duration) ([]Session, error) {
	all, err := sqldb.Collect(ctx, s.db.Read(), func(row sqldb.Row) (one Session, err error) {
		var hash string
		var made, seen, ends int64
		err = row.Scan(&hash, &one.Agent, &made, &seen, &ends)
		one.Made, one.Seen, one.Ends, one.Current = sqldb.Time(made), sqldb.Time(seen), sqldb.Time(ends), hash == current
		return one, err
	}, "SELECT hash, agent, made, seen, ends FROM sessions WHERE person = $1 AND ends > $2 AND seen > $3 ORDER BY seen DESC, hash",
		person, sqldb.Micros(now), sqldb.Micros(now.Add(-idle)))
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("list sessions: %w", err))
	}
	return all, nil
}

// deleteToken removes a person's token and returns what it was called; NotFound where they
// have no such.
func deleteToken(ctx context.Context, tx *sql.Tx, person int64, id string) (name string, err error) {
	err = tx.QueryRowContext(ctx, "DELETE FROM personal_tokens WHERE person = $1 AND id = $2 RETURNING name", person, id).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fault.New(fault.NotFound, "you have no such token")
	}
	return name, err
}
