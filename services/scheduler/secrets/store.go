package secrets

import (
	"context"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// storedSecret is a secret as it is kept.
type storedSecret struct {
	secretSlot
	reach
	repository string // owner/name when it was set
	keyID      string
	sealed     []byte
	updated    time.Time
}

const secretColumns = `repository_id, environment, name, repository, key_id, sealed, update_time, uses, branches`

func scanSecret(row sqldb.Row) (storedSecret, error) {
	var s storedSecret
	var updated int64
	var branches string
	err := row.Scan(&s.repositoryID, &s.environment, &s.name, &s.repository, &s.keyID, &s.sealed, &updated, &s.uses, &branches)
	s.updated = sqldb.Time(updated)
	if branches != "" {
		s.branches = strings.Split(branches, "\n")
	}
	return s, err
}

// saveSecret puts a secret in its slot; fault.Exhausted where the repository has
// enough others there.
func saveSecret(ctx context.Context, t *store.Tx, s storedSecret) error {
	var others int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM secrets WHERE repository_id = $1 AND environment = $2 AND name <> $3`,
		s.repositoryID, s.environment, s.name).Scan(&others)
	if err != nil {
		return err
	}
	if others >= MostSecrets {
		return fault.Newf(fault.Exhausted, "%s has %d secrets already, which is the most", s.repository, others)
	}
	return t.Exec(ctx, `INSERT INTO secrets (`+secretColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (repository_id, environment, name) DO UPDATE SET repository = excluded.repository,
			key_id = excluded.key_id, sealed = excluded.sealed, update_time = excluded.update_time,
			uses = excluded.uses, branches = excluded.branches`,
		s.repositoryID, s.environment, s.name, s.repository, s.keyID, s.sealed, sqldb.Micros(t.Now), int64(s.uses), strings.Join(s.branches, "\n"))
}

func deleteSecret(ctx context.Context, t *store.Tx, slot secretSlot) (found bool, err error) {
	result, err := t.ExecContext(ctx, `DELETE FROM secrets WHERE repository_id = $1 AND environment = $2 AND name = $3`,
		slot.repositoryID, slot.environment, slot.name)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// secretsOf are all of a repository.
func (v *Service) secretsOf(ctx context.Context, repositoryID int64) ([]storedSecret, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanSecret, `SELECT `+secretColumns+` FROM secrets WHERE repository_id = $1`, repositoryID)
	return found, sqldb.Kind(err)
}

// listSecrets are those after the given slot, of all repositories where the id is 0.
func (v *Service) listSecrets(ctx context.Context, repositoryID int64, after secretSlot, limit int) ([]storedSecret, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanSecret, `SELECT `+secretColumns+` FROM secrets
		WHERE ($1 = 0 OR repository_id = $1) AND (repository_id > $2 OR repository_id = $2 AND
			(environment > $3 OR environment = $3 AND name > $4))
		ORDER BY repository_id, environment, name LIMIT $5`, repositoryID, after.repositoryID, after.environment, after.name, limit)
	return found, sqldb.Kind(err)
}

// secretsRepository is the id of the repository for which something was set last under
// a name; 0 for none.
func (v *Service) secretsRepository(ctx context.Context, repository string) (int64, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), func(row sqldb.Row) (id int64, err error) { return id, row.Scan(&id) }, `SELECT repository_id FROM (
			SELECT repository_id, repository, update_time FROM secrets
			UNION ALL SELECT repository_id, repository, update_time FROM registry_credentials) AS kept
		WHERE lower(repository) = $1 ORDER BY update_time DESC LIMIT 1`, strings.ToLower(repository))
	if err != nil || len(found) == 0 {
		return 0, sqldb.Kind(err)
	}
	return found[0], nil
}

// outdatedSecrets are those that are not encrypted with the key.
func (v *Service) outdatedSecrets(ctx context.Context, keyID string) ([]storedSecret, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanSecret, `SELECT `+secretColumns+` FROM secrets WHERE key_id <> $1`, keyID)
	return found, sqldb.Kind(err)
}

// resealSecret replaces what is still the value that was read.
func resealSecret(ctx context.Context, t *store.Tx, was storedSecret, keyID string, sealed []byte) error {
	return t.Exec(ctx, `UPDATE secrets SET key_id = $4, sealed = $5
		WHERE repository_id = $1 AND environment = $2 AND name = $3 AND sealed = $6`,
		was.repositoryID, was.environment, was.name, keyID, sealed, was.sealed)
}
