package secrets

import (
	"context"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// storedRegistry is what a repository shows to a registry, as it is kept.
type storedRegistry struct {
	registrySlot
	reach
	repository string // owner/name when it was set
	username   string
	keyID      string
	sealed     []byte
	updated    time.Time
}

const registryColumns = `repository_id, environment, host, repository, username, key_id, sealed, update_time, uses, branches`

func scanRegistry(row sqldb.Row) (storedRegistry, error) {
	var r storedRegistry
	var updated int64
	var branches string
	err := row.Scan(&r.repositoryID, &r.environment, &r.host, &r.repository, &r.username, &r.keyID, &r.sealed, &updated, &r.uses, &branches)
	r.updated = sqldb.Time(updated)
	if branches != "" {
		r.branches = strings.Split(branches, "\n")
	}
	return r, err
}

// saveRegistry puts what is shown to a registry in its slot; fault.Exhausted where the
// repository has enough others there.
func saveRegistry(ctx context.Context, t *store.Tx, r storedRegistry) error {
	var others int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM registry_credentials WHERE repository_id = $1 AND environment = $2 AND host <> $3`,
		r.repositoryID, r.environment, r.host).Scan(&others)
	if err != nil {
		return err
	}
	if others >= MostSecrets {
		return fault.Newf(fault.Exhausted, "%s has credentials of %d registries already, which is the most", r.repository, others)
	}
	return t.Exec(ctx, `INSERT INTO registry_credentials (`+registryColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (repository_id, environment, host) DO UPDATE SET repository = excluded.repository, username = excluded.username,
			key_id = excluded.key_id, sealed = excluded.sealed, update_time = excluded.update_time,
			uses = excluded.uses, branches = excluded.branches`,
		r.repositoryID, r.environment, r.host, r.repository, r.username, r.keyID, r.sealed, sqldb.Micros(t.Now), int64(r.uses), strings.Join(r.branches, "\n"))
}

func deleteRegistry(ctx context.Context, t *store.Tx, slot registrySlot) (found bool, err error) {
	result, err := t.ExecContext(ctx, `DELETE FROM registry_credentials WHERE repository_id = $1 AND environment = $2 AND host = $3`,
		slot.repositoryID, slot.environment, slot.host)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// registriesOf are all of a repository for a host.
func (v *Service) registriesOf(ctx context.Context, repositoryID int64, host string) ([]storedRegistry, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanRegistry, `SELECT `+registryColumns+` FROM registry_credentials
		WHERE repository_id = $1 AND host = $2 ORDER BY environment`, repositoryID, host)
	return found, sqldb.Kind(err)
}

// listRegistries are those after the given slot, of all repositories where the id is 0.
func (v *Service) listRegistries(ctx context.Context, repositoryID int64, after registrySlot, limit int) ([]storedRegistry, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanRegistry, `SELECT `+registryColumns+` FROM registry_credentials
		WHERE ($1 = 0 OR repository_id = $1) AND (repository_id > $2 OR repository_id = $2 AND
			(environment > $3 OR environment = $3 AND host > $4))
		ORDER BY repository_id, environment, host LIMIT $5`, repositoryID, after.repositoryID, after.environment, after.host, limit)
	return found, sqldb.Kind(err)
}

// outdatedRegistries are those that are not encrypted with the key.
func (v *Service) outdatedRegistries(ctx context.Context, keyID string) ([]storedRegistry, error) {
	found, err := sqldb.Collect(ctx, v.store.DB.Read(), scanRegistry, `SELECT `+registryColumns+` FROM registry_credentials WHERE key_id <> $1`, keyID)
	return found, sqldb.Kind(err)
}

// resealRegistry replaces what is still the value that was read.
func resealRegistry(ctx context.Context, t *store.Tx, was storedRegistry, keyID string, sealed []byte) error {
	return t.Exec(ctx, `UPDATE registry_credentials SET key_id = $4, sealed = $5
		WHERE repository_id = $1 AND environment = $2 AND host = $3 AND sealed = $6`,
		was.repositoryID, was.environment, was.host, keyID, sealed, was.sealed)
}
