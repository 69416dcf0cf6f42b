package content

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// kind tells caches and artifacts apart.
type kind int32

const (
	kindCache kind = iota + 1
	kindArtifact
)

// stored is a cache or an artifact.
type stored struct {
	id            string
	repositoryID  int64
	repository    string // owner/name when it was written
	kind          kind
	scope         scope
	version, name string
	buildID       string
	attempt       int32
	size, files   int64
	pack          string // with the manifest
	digest        []byte // of the manifest
	created, used time.Time
	expires       time.Time
}

const columns = `id, repository_id, repository, kind, scope, tier, version, name, build_id, attempt, size, files, pack, digest, create_time, use_time, expire_time`

func scan(row sqldb.Row) (*stored, error) {
	var c stored
	var created, used, expires int64
	err := row.Scan(&c.id, &c.repositoryID, &c.repository, &c.kind, &c.scope.name, &c.scope.tier, &c.version, &c.name, &c.buildID, &c.attempt,
		&c.size, &c.files, &c.pack, &c.digest, &created, &used, &expires)
	c.created, c.used, c.expires = sqldb.Time(created), sqldb.Time(used), sqldb.Time(expires)
	return &c, err
}

func (s *Service) newID() (string, error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(s.random, id); err != nil {
		return "", err
	}
	return hex.EncodeToString(id), nil
}

// one is the first that a query finds; nil for none.
func (s *Service) one(ctx context.Context, query string, args ...any) (*stored, error) {
	found, err := sqldb.First(ctx, s.store.DB.Read(), scan, `SELECT `+columns+` FROM contents WHERE `+query, args...)
	return found, sqldb.Kind(err)
}

func (s *Service) all(ctx context.Context, query string, args ...any) ([]*stored, error) {
	found, err := sqldb.Collect(ctx, s.store.DB.Read(), scan, `SELECT `+columns+` FROM contents WHERE `+query, args...)
	return found, sqldb.Kind(err)
}

// addPack notes a blob before it is written: so none is ever forgotten.
func (s *Service) addPack(ctx context.Context, of *stored) (id string, err error) {
	if id, err = s.newID(); err != nil {
		return "", err
	}
	return id, s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `INSERT INTO packs (id, repository_id, kind, size, free_time, dying, broken) VALUES ($1, $2, $3, 0, $4, $5, $5)`,
			id, of.repositoryID, int32(of.kind), sqldb.Micros(t.Now), false)
	})
}

// errAnew is that the sweep was faster: what was to be used goes.
var errAnew = fault.New(fault.Unavailable, "what it shares with others was removed meanwhile: begin anew")

// usePack has a content use a pack from now on.
func usePack(ctx context.Context, t *store.Tx, contentID, pack string, size int64) error {
	result, err := t.ExecContext(ctx, `UPDATE packs SET free_time = 0, size = CASE WHEN CAST($2 AS BIGINT) > 0 THEN CAST($2 AS BIGINT) ELSE size END WHERE id = $1 AND NOT dying AND NOT broken`, pack, size)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, errAnew)
	}
	return t.Exec(ctx, `INSERT INTO pack_uses (content_id, pack_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, contentID, pack)
}

// add stores a content; fault.Exists where there is one of its name.
func add(ctx context.Context, t *store.Tx, c *stored) error {
	result, err := t.ExecContext(ctx, `INSERT INTO contents (`+columns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16) ON CONFLICT DO NOTHING`,
		c.id, c.repositoryID, c.repository, int32(c.kind), c.scope.name, int32(c.scope.tier), c.version, c.name, c.buildID, c.attempt,
		c.size, c.files, c.pack, c.digest, sqldb.Micros(t.Now), sqldb.Micros(c.expires))
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fault.Newf(fault.Exists, "%s was saved meanwhile", c.name))
	}
	return nil
}

// remove removes contents; the packs that nothing uses any more go later.
func remove(ctx context.Context, t *store.Tx, ids ...string) error {
	for _, id := range ids {
		packs, err := sqldb.Collect(ctx, t, scanText, `DELETE FROM pack_uses WHERE content_id = $1 RETURNING pack_id`, id)
		if err != nil {
			return err
		}
		if err := t.Exec(ctx, `DELETE FROM contents WHERE id = $1`, id); err != nil {
			return err
		}
		for _, pack := range packs {
			if err := t.Exec(ctx, `UPDATE packs SET free_time = $2 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM pack_uses WHERE pack_id = $1)`, pack, sqldb.Micros(t.Now)); err != nil {
				return err
			}
		}
	}
	return nil
}

func scanText(row sqldb.Row) (text string, err error) {
	err = row.Scan(&text)
	return text, err
}

// taken is how many bytes the contents of a kind take.
func taken(ctx context.Context, q sqldb.Querier, repositoryID int64, of kind) (bytes int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE(SUM(size), 0) FROM packs WHERE repository_id = $1 AND kind = $2 AND free_time = 0`, repositoryID, int32(of)).Scan(&bytes)
	return bytes, err
}

// sizes are those of packs that may be used further.
func (s *Service) sizes(ctx context.Context, contentID string) (map[string]int64, error) {
	type pack struct {
		id   string
		size int64
	}
	found, err := sqldb.Collect(ctx, s.store.DB.Read(), func(row sqldb.Row) (p pack, err error) {
		err = row.Scan(&p.id, &p.size)
		return p, err
	}, `SELECT id, size FROM packs WHERE id IN (SELECT pack_id FROM pack_uses WHERE content_id = $1) AND NOT dying AND NOT broken`, contentID)
	sizes := map[string]int64{}
	for _, one := range found {
		sizes[one.id] = one.size
	}
	return sizes, sqldb.Kind(err)
}

// touch notes that a cache was restored.
func (s *Service) touch(ctx context.Context, c *stored) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `UPDATE contents SET use_time = $2, expire_time = $3 WHERE id = $1`,
			c.id, sqldb.Micros(t.Now), sqldb.Micros(t.Now.Add(s.limits.CacheAge)))
	})
}

// drop removes a content that is broken, and has no other built upon its pack.
func (s *Service) drop(ctx context.Context, c *stored, cause error) error {
	s.log.WarnContext(ctx, "content is broken and removed", "repository", c.repository, "name", c.name, "build", c.buildID, "error", cause)
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if b, ok := errors.AsType[brokenError](cause); ok {
			if err := t.Exec(ctx, `UPDATE packs SET broken = $2 WHERE id = $1`, b.pack, true); err != nil {
				return err
			}
		}
		return remove(ctx, t, c.id)
	})
}

// BlobKeys are the keys of all packs that caches and artifacts lie in.
func BlobKeys(ctx context.Context, q sqldb.Querier) ([]string, error) {
	return sqldb.Collect(ctx, q, func(row sqldb.Row) (key string, err error) {
		err = row.Scan(&key)
		return blobOf(key), err
	}, `SELECT id FROM packs WHERE NOT dying AND NOT broken ORDER BY id`)
}
