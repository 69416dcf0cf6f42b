package token

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// kept is a token as it is stored.
type kept struct {
	repositoryID           int64
	name, repository       string
	created, used, expires time.Time // used, expires: zero is never
}

const columns = `repository_id, name, repository, create_time, use_time, expire_time`

func scan(row sqldb.Row) (kept, error) {
	var k kept
	var created, used, expires int64
	err := row.Scan(&k.repositoryID, &k.name, &k.repository, &created, &used, &expires)
	k.created, k.used, k.expires = sqldb.Time(created), sqldb.Time(used), sqldb.Time(expires)
	return k, err
}

// add stores a new token; fault.Exists where the repository has one of the name,
// fault.Exhausted where it has enough.
func add(ctx context.Context, t *store.Tx, k kept, hash []byte) error {
	var others, same int
	err := t.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN name = $2 THEN 1 END) FROM repository_tokens WHERE repository_id = $1`, k.repositoryID, k.name).Scan(&others, &same)
	switch {
	case err != nil:
		return err
	case same > 0:
		return fault.Newf(fault.Exists, "%s has a token %s already: delete it, or choose another name", k.repository, k.name)
	case others >= most:
		return fault.Newf(fault.Exhausted, "%s has %d tokens already, which is the most", k.repository, others)
	}
	return t.Exec(ctx, `INSERT INTO repository_tokens (`+columns+`, hash) VALUES ($1, $2, $3, $4, 0, $5, $6)`,
		k.repositoryID, k.name, k.repository, sqldb.Micros(k.created), sqldb.Micros(k.expires), hash)
}

// find is the token of a hash; nil where there is none.
func (s *Service) find(ctx context.Context, hash []byte) (*kept, error) {
	k, err := scan(s.store.DB.Read().QueryRowContext(ctx, `SELECT `+columns+` FROM repository_tokens WHERE hash = $1`, hash))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return &k, sqldb.Kind(err)
}

// use notes that a token was used. A token that is used all the time is written once a
// minute.
func (s *Service) use(ctx context.Context, k *kept) error {
	if s.store.Now().Sub(k.used) < usedTo {
		return nil
	}
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `UPDATE repository_tokens SET use_time = $3 WHERE repository_id = $1 AND name = $2 AND use_time < $3`,
			k.repositoryID, k.name, sqldb.Micros(t.Now))
	})
}

// list are those after a key, of all repositories or of one.
func (s *Service) list(ctx context.Context, repository string, afterID int64, afterName string, limit int) ([]kept, error) {
	found, err := sqldb.Collect(ctx, s.store.DB.Read(), scan, `SELECT `+columns+` FROM repository_tokens
		WHERE ($1 = '' OR lower(repository) = $1) AND (repository_id > $2 OR repository_id = $2 AND name > $3)
		ORDER BY repository_id, name LIMIT $4`, strings.ToLower(repository), afterID, afterName, limit)
	return found, sqldb.Kind(err)
}

// remove ends a token of a repository, by the name that it had then. It returns whose
// tokens of that name there were.
func remove(ctx context.Context, t *store.Tx, repository, name string) (repositoryIDs []int64, err error) {
	return sqldb.Collect(ctx, t, func(row sqldb.Row) (id int64, err error) { return id, row.Scan(&id) },
		`DELETE FROM repository_tokens WHERE lower(repository) = $1 AND name = $2 RETURNING repository_id`, strings.ToLower(repository), name)
}
