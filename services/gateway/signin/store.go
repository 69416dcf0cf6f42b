package signin

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// store keeps people, what they have shown GitHub's leave for, and what they show.
type store struct{ db *sqldb.DB }

// hashOf is what is stored of a secret that somebody shows. The secrets are random
// bits, so that nothing slower is needed.
func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// grant is what lets Forge ask GitHub as a person.
type grant struct {
	person  int64
	login   string
	keyID   string
	sealed  []byte    // empty: GitHub has taken it back
	ends    time.Time // zero: never
	version int64
}

// signedIn stores a person with a fresh grant, a session or a token of theirs, and
// that the state of the sign-in was used; Exists where it was before.
func (s *store) signedIn(ctx context.Context, g grant, state string, stateEnds time.Time, add func(context.Context, *sql.Tx) error) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if state != "" {
			used, err := tx.ExecContext(ctx, "INSERT INTO used_states (hash, ends) VALUES ($1, $2) ON CONFLICT DO NOTHING", hashOf(state), sqldb.Micros(stateEnds))
			if err != nil {
				return err
			}
			if n, err := used.RowsAffected(); err != nil || n == 0 {
				return errors.Join(err, fault.New(fault.Exists, "this sign-in was finished before"))
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO people (id, login, key_id, sealed, ends, version) VALUES ($1, $2, $3, $4, $5, 1)
			ON CONFLICT (id) DO UPDATE SET login = excluded.login, key_id = excluded.key_id, sealed = excluded.sealed, ends = excluded.ends,
			version = people.version + 1, lease = 0`, g.person, g.login, g.keyID, g.sealed, sqldb.Micros(g.ends))
		if err != nil {
			return err
		}
		return add(ctx, tx)
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("store the sign-in of %s: %w", g.login, err))
	}
	return nil
}

func addSession(hash string, person int64, agent string, now, ends time.Time) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO sessions (hash, person, agent, made, seen, ends) VALUES ($1, $2, $3, $4, $4, $5)",
			hash, person, agent, sqldb.Micros(now), sqldb.Micros(ends))
		return err
	}
}

// shown is a session or a token as it is found by its secret.
type shown struct {
	person           int64
	login            string
	name             string // of a token
	granted          bool
	made, seen, ends time.Time
}

// find looks for what has a hash, in sessions or personal_tokens; NotFound where there is none.
func (s *store) find(ctx context.Context, table, hash string) (f shown, err error) {
	var made, seen, ends int64
	name := "''"
	if table == "personal_tokens" {
		name = "t.name"
	}
	err = s.db.Read().QueryRowContext(ctx, "SELECT p.id, p.login, "+name+", COALESCE(LENGTH(p.sealed), 0) > 0, t.made, t.seen, t.ends FROM "+table+
		" t JOIN people p ON p.id = t.person WHERE t.hash = $1", hash).Scan(&f.person, &f.login, &f.name, &f.granted, &made, &seen, &ends)
	if err != nil {
		return shown{}, sqldb.Kind(fmt.Errorf("look for one of %s: %w", table, err))
	}
	f.made, f.seen, f.ends = sqldb.Time(made), sqldb.Time(seen), sqldb.Time(ends)
	return f, nil
}

// write does something in a transaction.
func (s *store) write(ctx context.Context, what string, do func(context.Context, *sql.Tx) error) error {
	if err := s.db.Write(ctx, do); err != nil {
		return sqldb.Kind(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

func (s *store) exec(ctx context.Context, what, statement string, args ...any) (n int64, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, statement, args...)
		if err == nil {
			n, err = done.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, sqldb.Kind(fmt.Errorf("%s: %w", what, err))
	}
	return n, nil
}

// touch notes that what has a hash was shown.
func (s *store) touch(ctx context.Context, table, hash string, now time.Time) error {
	_, err := s.exec(ctx, "note a use in "+table, "UPDATE "+table+" SET seen = $2 WHERE hash = $1", hash, sqldb.Micros(now))
	return err
}

func (s *store) remove(ctx context.Context, table, hash string) error {
	_, err := s.exec(ctx, "remove one of "+table, "DELETE FROM "+table+" WHERE hash = $1", hash)
	return err
}

// grant reads what lets Forge ask GitHub as a person; NotFound where nobody has
// signed in as them.
func (s *store) grant(ctx context.Context, person int64) (g grant, err error) {
	var ends int64
	err = s.db.Read().QueryRowContext(ctx, "SELECT id, login, key_id, sealed, ends, version FROM people WHERE id = $1", person).
		Scan(&g.person, &g.login, &g.keyID, &g.sealed, &ends, &g.version)
	if err != nil {
		return grant{}, sqldb.Kind(fmt.Errorf("read what GitHub lets person %d do: %w", person, err))
	}
	g.ends = sqldb.Time(ends)
	return g, nil
}

// lease lets one of all who would refresh a grant do so, until then.
func (s *store) lease(ctx context.Context, g grant, now, until time.Time) (mine bool, err error) {
	n, err := s.exec(ctx, "lease a refresh", "UPDATE people SET lease = $3 WHERE id = $1 AND version = $2 AND lease <= $4",
		g.person, g.version, sqldb.Micros(until), sqldb.Micros(now))
	return n == 1, err
}

// renew stores what has become of a grant, and ends the lease. One without sealed is over.
func (s *store) renew(ctx context.Context, before, after grant) error {
	_, err := s.exec(ctx, "store a refreshed token", `UPDATE people SET key_id = $3, sealed = $4, ends = $5, version = version + 1, lease = 0
		WHERE id = $1 AND version = $2`, before.person, before.version, after.keyID, after.sealed, sqldb.Micros(after.ends))
	return err
}

func (s *store) release(ctx context.Context, g grant) error {
	_, err := s.exec(ctx, "end a lease", "UPDATE people SET lease = 0 WHERE id = $1 AND version = $2", g.person, g.version)
	return err
}

// freeLeases ends what one who died held.
func (s *store) freeLeases(ctx context.Context) error {
	return s.db.FreeLeases(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE people SET lease = 0 WHERE lease <> 0")
		return err
	})
}

// prune removes what has ended, and people who show nothing any more.
func (s *store) prune(ctx context.Context, now time.Time, idle time.Duration) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, table := range []string{"sessions", "personal_tokens", "used_states"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE ends <= $1", sqldb.Micros(now)); err != nil { //nolint:gosec // one of three
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE seen <= $1", sqldb.Micros(now.Add(-idle))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM people WHERE NOT EXISTS (SELECT 1 FROM sessions s WHERE s.person = people.id)
			AND NOT EXISTS (SELECT 1 FROM personal_tokens t WHERE t.person = people.id)`)
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("remove sessions that have ended: %w", err))
	}
	return nil
}
