package reporter

import (
	"context"
	"database/sql"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	pruneEvery = 10 * time.Minute
	pruneMost  = 500 // in one transaction
)

// prune forgets what GitHub was told, or will not be told any more, once nothing
// about it has changed for the retention.
func (s *Service) prune(ctx context.Context) error {
	for {
		pruned, err := s.store.prune(ctx, s.deps.Now().Add(-s.deps.Retention))
		if err != nil || pruned < pruneMost {
			return err
		}
	}
}

func (s *store) prune(ctx context.Context, before time.Time) (pruned int, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		ids, err := sqldb.Collect(ctx, tx, func(row sqldb.Row) (id string, err error) {
			err = row.Scan(&id)
			return id, err
		}, `SELECT id FROM targets WHERE updated < $1 AND lease = 0 AND state IN ($2, $3) ORDER BY updated LIMIT $4`+s.db.Dialect.SkipLocked(),
			sqldb.Micros(before), int32(reporterv1.Target_STATE_TOLD), int32(reporterv1.Target_STATE_KEPT), pruneMost)
		if err != nil {
			return err
		}
		for _, id := range ids {
			for _, statement := range []string{`DELETE FROM calls WHERE target_id = $1`, `DELETE FROM targets WHERE id = $1`} {
				if _, err := tx.ExecContext(ctx, statement, id); err != nil {
					return err
				}
			}
		}
		pruned = len(ids)
		return nil
	})
	return pruned, sqldb.Kind(err)
}

// oldestUnpublished is since when GitHub has not been told something that it is
// still to be told; the zero time: it knows all.
func (s *store) oldestUnpublished(ctx context.Context) (time.Time, error) {
	var since sql.NullInt64
	err := s.db.Read().QueryRowContext(ctx, `SELECT min(since) FROM targets WHERE since > 0 AND state <> $1`,
		int32(reporterv1.Target_STATE_KEPT)).Scan(&since)
	return sqldb.Time(since.Int64), sqldb.Kind(err)
}
