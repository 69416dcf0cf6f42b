package tests

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Prune removes results whose builds were removed, and what is known of tests and
// commits that nobody asks about any more, some of it at a time. It returns limit while
// more may be left.
func Prune(ctx context.Context, t *store.Tx, before time.Time, limit int) (int, error) {
	const rows = 5000
	id := int64(0)
	err := t.QueryRowContext(ctx, `SELECT id FROM test_runs WHERE create_time <= $1 AND NOT EXISTS (SELECT 1 FROM builds WHERE builds.id = test_runs.build_id)
		ORDER BY create_time LIMIT 1`+t.SkipLocked, sqldb.Micros(before)).Scan(&id)
	if err == nil {
		removed := int64(0)
		for _, statement := range []string{
			`DELETE FROM test_results WHERE run_id = $1 AND test_id IN (SELECT test_id FROM test_results WHERE run_id = $1 LIMIT $2)`,
			`DELETE FROM test_failures WHERE run_id = $1 AND test_id IN (SELECT test_id FROM test_failures WHERE run_id = $1 LIMIT $2)`,
			`DELETE FROM test_findings WHERE run_id = $1 AND number IN (SELECT number FROM test_findings WHERE run_id = $1 LIMIT $2)`,
		} {
			result, err := t.ExecContext(ctx, statement, id, rows)
			if err != nil {
				return 0, err
			}
			n, err := result.RowsAffected()
			if err != nil {
				return 0, err
			}
			removed = max(removed, n)
		}
		if removed < rows {
			err = t.Exec(ctx, `DELETE FROM test_runs WHERE id = $1`, id)
		}
		return limit, err
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	forgotten := t.Now.Add(-flakyFor)
	if err := t.Exec(ctx, `DELETE FROM test_flakes WHERE seen_time <= $1`, sqldb.Micros(forgotten)); err != nil {
		return 0, err
	}
	if before.Before(forgotten) {
		forgotten = before
	}
	result, err := t.ExecContext(ctx, `DELETE FROM test_names WHERE id IN (SELECT id FROM test_names WHERE seen_time <= $1
		AND NOT EXISTS (SELECT 1 FROM test_results WHERE test_results.test_id = test_names.id)
		AND NOT EXISTS (SELECT 1 FROM test_flakes WHERE test_flakes.test_id = test_names.id AND test_flakes.repository_id = test_names.repository_id)
		ORDER BY seen_time LIMIT $2)`, sqldb.Micros(forgotten), rows)
	if err != nil {
		return 0, err
	}
	if n, err := result.RowsAffected(); err != nil || n < rows {
		return 0, err
	}
	return limit, nil
}
