package secrets

import (
	"context"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// kept is a secret, or what is shown to a registry, as it is stored.
type kept struct {
	slot
	reach
	repository string // owner/name when it was set
	username   string // "" where the kind has none
	keyID      string
	sealed     []byte
	updated    time.Time
}

func (k *kind) columns() string {
	columns := `repository_id, environment, ` + k.key + `, repository, key_id, sealed, update_time, uses, branches`
	if k.usernames {
		columns += `, username`
	}
	return columns
}

func (k *kind) scan(row sqldb.Row) (kept, error) {
	s := kept{slot: slot{kind: k}}
	var updated int64
	var branches string
	fields := []any{&s.repositoryID, &s.environment, &s.name, &s.repository, &s.keyID, &s.sealed, &updated, &s.uses, &branches}
	if k.usernames {
		fields = append(fields, &s.username)
	}
	err := row.Scan(fields...)
	s.updated = sqldb.Time(updated)
	if branches != "" {
		s.branches = strings.Split(branches, "\n")
	}
	return s, err
}

// save puts something in its slot; fault.Exhausted where the repository has enough
// others there.
func (s kept) save(ctx context.Context, t *store.Tx) error {
	var others int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM `+s.kind.table+` WHERE repository_id = $1 AND environment = $2 AND `+s.kind.key+` <> $3`,
		s.repositoryID, s.environment, s.name).Scan(&others)
	if err != nil {
		return err
	}
	if others >= MostSecrets {
		return fault.Newf(fault.Exhausted, s.kind.full, s.repository, others)
	}
	places, replaced := `$1, $2, $3, $4, $5, $6, $7, $8, $9`, `repository = excluded.repository,
			key_id = excluded.key_id, sealed = excluded.sealed, update_time = excluded.update_time,
			uses = excluded.uses, branches = excluded.branches`
	values := []any{
		s.repositoryID, s.environment, s.name, s.repository, s.keyID, s.sealed, sqldb.Micros(t.Now), int64(s.uses), strings.Join(s.branches, "\n"),
	}
	if s.kind.usernames {
		places, replaced, values = places+`, $10`, replaced+`, username = excluded.username`, append(values, s.username)
	}
	return t.Exec(ctx, `INSERT INTO `+s.kind.table+` (`+s.kind.columns()+`) VALUES (`+places+`)
		ON CONFLICT (repository_id, environment, `+s.kind.key+`) DO UPDATE SET `+replaced, values...)
}

func (s slot) clear(ctx context.Context, t *store.Tx) (found bool, err error) {
	result, err := t.ExecContext(ctx, `DELETE FROM `+s.kind.table+` WHERE repository_id = $1 AND environment = $2 AND `+s.kind.key+` = $3`,
		s.repositoryID, s.environment, s.name)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// find are those of a kind that the rest of a query tells of.
func (v *Service) find(ctx context.Context, k *kind, rest string, args ...any) ([]kept, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), k.scan, `SELECT `+k.columns()+` FROM `+k.table+` WHERE `+rest, args...)
	return found, sqldb.Kind(err)
}

// of are all of a repository.
func (v *Service) of(ctx context.Context, k *kind, repositoryID int64) ([]kept, error) {
	return v.find(ctx, k, `repository_id = $1`, repositoryID)
}

// behind are those after the given slot, of all repositories where the id is 0.
func (v *Service) behind(ctx context.Context, after slot, repositoryID int64, limit int) ([]kept, error) {
	key := after.kind.key
	return v.find(ctx, after.kind, `($1 = 0 OR repository_id = $1) AND (repository_id > $2 OR repository_id = $2 AND
			(environment > $3 OR environment = $3 AND `+key+` > $4))
		ORDER BY repository_id, environment, `+key+` LIMIT $5`, repositoryID, after.repositoryID, after.environment, after.name, limit)
}

// outdated are those that are not encrypted with the key.
func (v *Service) outdated(ctx context.Context, k *kind, keyID string) ([]kept, error) {
	return v.find(ctx, k, `key_id <> $1`, keyID)
}

// reseal replaces what is still the value that was read.
func (s kept) reseal(ctx context.Context, t *store.Tx, keyID string, sealed []byte) error {
	return t.Exec(ctx, `UPDATE `+s.kind.table+` SET key_id = $4, sealed = $5
		WHERE repository_id = $1 AND environment = $2 AND `+s.kind.key+` = $3 AND sealed = $6`,
		s.repositoryID, s.environment, s.name, keyID, sealed, s.sealed)
}

// lastOwner is the id of the repository for which something was set last under a name;
// 0 for none.
func (v *Service) lastOwner(ctx context.Context, repository string) (int64, error) {
	id, err := sqldb.First(ctx, v.store.DB.Read(), func(row sqldb.Row) (id int64, err error) { return id, row.Scan(&id) }, `SELECT repository_id FROM (
			SELECT repository_id, repository, update_time FROM secrets
			UNION ALL SELECT repository_id, repository, update_time FROM registry_credentials) AS kept
		WHERE lower(repository) = $1 ORDER BY update_time DESC LIMIT 1`, strings.ToLower(repository))
	return id, sqldb.Kind(err)
}
