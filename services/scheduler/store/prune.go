package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// old names what has ended, or was written, before a time: ids of rows, at most so
// many. A due time of the greatest number is never.
func (s *Store) old(ctx context.Context, query string, before time.Time, limit int) ([]string, error) {
	ids, err := sqldb.Collect(ctx, s.DB.Read(), scanID, query, sqldb.Micros(before), limit)
	return ids, sqldb.Kind(err)
}

// OldLogs names builds that ended before a time and still have a log, once for each
// attempt that has one. It looks at what is kept of logs: of builds there may be many
// more, whose logs are gone.
func (s *Store) OldLogs(ctx context.Context, before time.Time, limit int) ([]string, error) {
	return s.old(ctx, `SELECT build_id FROM archives WHERE NOT old AND end_time <= $1
		AND EXISTS (SELECT 1 FROM builds WHERE id = build_id AND builds.end_time > 0 AND builds.end_time <= $1)
		ORDER BY end_time LIMIT $2`, before, limit)
}

// OldBuilds names builds that ended before a time and of which nothing is to be
// done or known any more.
func (s *Store) OldBuilds(ctx context.Context, before time.Time, limit int) ([]string, error) {
	return s.old(ctx, `SELECT id FROM builds WHERE end_time > 0 AND end_time <= $1 AND part_of = ''
		AND NOT EXISTS (SELECT 1 FROM environments WHERE id IN (build_id, deployed_id, newest_id))
		AND NOT EXISTS (SELECT 1 FROM environments e WHERE e.repository_id = builds.repository_id AND e.name = builds.environment AND e.pull_request <> 0)
		AND NOT EXISTS (SELECT 1 FROM attempts WHERE build_id = id AND (NOT ended OR stop_time < 9223372036854775807))
		AND NOT EXISTS (SELECT 1 FROM builds jobs JOIN attempts ON attempts.build_id = jobs.id
			WHERE jobs.part_of = builds.id AND jobs.part_of <> '' AND (NOT ended OR stop_time < 9223372036854775807))
		AND NOT EXISTS (SELECT 1 FROM targets WHERE targets.build_id = builds.id AND targets.due_time < 9223372036854775807)
		AND NOT EXISTS (SELECT 1 FROM builds jobs JOIN targets ON targets.build_id = jobs.id
			WHERE jobs.part_of = builds.id AND jobs.part_of <> '' AND targets.due_time < 9223372036854775807)
		ORDER BY end_time LIMIT $2`, before, limit)
}

// OldDecisions names deliveries that were decided about before a time.
func (s *Store) OldDecisions(ctx context.Context, before time.Time, limit int) ([]string, error) {
	return s.old(ctx, `SELECT delivery_id FROM decisions WHERE create_time <= $1 ORDER BY create_time LIMIT $2`, before, limit)
}

// OldAnswers names comments that were answered before a time.
func (s *Store) OldAnswers(ctx context.Context, before time.Time, limit int) ([]string, error) {
	return s.old(ctx, `SELECT comment FROM answers WHERE create_time <= $1 AND due_time = 9223372036854775807
		ORDER BY create_time LIMIT $2`, before, limit)
}

// EmptyLogs notes that the logs of a build are gone.
func (t *Tx) EmptyLogs(ctx context.Context, buildID string) error {
	return t.Exec(ctx, `UPDATE attempts SET log_size = 0 WHERE build_id = $1`, buildID)
}

// RemoveBuild removes a build with all that is known of it, but for its logs.
func (t *Tx) RemoveBuild(ctx context.Context, id string) error {
	var repositoryID int64
	var sha string
	err := t.QueryRowContext(ctx, `DELETE FROM builds WHERE id = $1 RETURNING repository_id, sha`, id).Scan(&repositoryID, &sha)
	if errors.Is(err, sql.ErrNoRows) { // another replica was faster
		return nil
	}
	if err != nil {
		return err
	}
	for _, statement := range []string{
		`DELETE FROM steps WHERE build_id = $1`, `DELETE FROM outputs WHERE build_id = $1`, `DELETE FROM inputs WHERE build_id = $1`, `DELETE FROM targets WHERE build_id = $1`,
		`DELETE FROM deploy_files WHERE build_id = $1`, `DELETE FROM tokens WHERE build_id = $1`, `DELETE FROM differences WHERE build_id = $1`, `DELETE FROM built_images WHERE build_id = $1 AND loaded = ''`, `DELETE FROM attempts WHERE build_id = $1`,
	} {
		if err := t.Exec(ctx, statement, id); err != nil {
			return err
		}
	}
	return t.Exec(ctx, `DELETE FROM check_suites WHERE repository_id = $1 AND sha = $2
		AND NOT EXISTS (SELECT 1 FROM builds WHERE repository_id = $1 AND sha = $2)`, repositoryID, sha)
}

// RemoveDecision forgets what was decided about a delivery.
func (t *Tx) RemoveDecision(ctx context.Context, deliveryID string) error {
	return t.Exec(ctx, `DELETE FROM decisions WHERE delivery_id = $1`, deliveryID)
}

// RemoveAnswer forgets what was decided about a comment.
func (t *Tx) RemoveAnswer(ctx context.Context, comment string) error {
	return t.Exec(ctx, `DELETE FROM answers WHERE comment = $1`, comment)
}

// RemovePullRequests forgets what is known of pull requests that were closed before a
// time and of which no build is left, with the commits of forks that were heard of. It
// returns how many there were, at most so many.
func RemovePullRequests(ctx context.Context, t *Tx, before time.Time, limit int) (int, error) {
	type key struct{ repository, number int64 }
	scan := func(row sqldb.Row) (k key, err error) { return k, row.Scan(&k.repository, &k.number) }
	old, err := sqldb.Collect(ctx, t, scan, `SELECT repository_id, number FROM pull_requests WHERE closed AND update_time <= $1
		AND NOT EXISTS (SELECT 1 FROM builds WHERE builds.repository_id = pull_requests.repository_id AND builds.pull_request = pull_requests.number)
		ORDER BY update_time LIMIT $2`+t.SkipLocked, sqldb.Micros(before), limit)
	for _, k := range old {
		err = errors.Join(err,
			t.Exec(ctx, `DELETE FROM fork_heads WHERE repository_id = $1 AND pull_request = $2`, k.repository, k.number),
			t.Exec(ctx, `DELETE FROM pull_requests WHERE repository_id = $1 AND number = $2`, k.repository, k.number))
	}
	return len(old), err
}

// RemoveMergeGroups forgets the groups that the queue has not asked for since a time.
// It returns how many there were, at most so many.
func RemoveMergeGroups(ctx context.Context, t *Tx, before time.Time, limit int) (int, error) {
	removed, err := t.ExecContext(ctx, `DELETE FROM merge_groups WHERE update_time > 0 AND (repository_id, ref, sha) IN (
		SELECT repository_id, ref, sha FROM merge_groups WHERE update_time > 0 AND update_time <= $1 ORDER BY update_time LIMIT $2)`,
		sqldb.Micros(before), limit)
	if err != nil {
		return 0, err
	}
	n, err := removed.RowsAffected()
	return int(n), err
}
