package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// flakyFor is for how long a test counts as flaky after it was.
	flakyFor = 14 * 24 * time.Hour
	// maxCompared is how many attempts on the same commit one is held against, and
	// maxFlakes how many tests each of them can show to be flaky.
	maxCompared = 20
	maxFlakes   = 1000
)

// Settle counts what an attempt has reported, which now ends, and notes which tests
// have passed and failed on its commit: in it, or in another of the same build, or job,
// of that commit. Attempts are compared within their scope alone.
func Settle(ctx context.Context, t *store.Tx, b *store.Build) error {
	var id, repositoryID int64
	var scope, what, name string
	err := t.QueryRowContext(ctx, `SELECT id, repository_id, scope, tested, context FROM test_runs WHERE build_id = $1 AND attempt = $2 AND NOT ended`,
		b.GetId(), b.GetAttempt()).Scan(&id, &repositoryID, &scope, &what, &name)
	if errors.Is(err, sql.ErrNoRows) { // it has reported nothing
		return nil
	}
	if err != nil {
		return err
	}
	counts, err := count(ctx, t, id)
	if err != nil {
		return err
	}
	err = t.Exec(ctx, `UPDATE test_runs SET ended = $2, passed = $3, skipped = $4, failed = $5, errored = $6 WHERE id = $1`,
		id, true, counts.GetPassed(), counts.GetSkipped(), counts.GetFailed(), counts.GetErrored())
	if err != nil {
		return err
	}
	flake := func(where, failed, passed string, args ...any) error {
		args = append([]any{repositoryID, scope, what, b.GetSha(), failed, passed, sqldb.Micros(t.Now), maxFlakes}, args...)
		// The condition is one of the literals below.
		return t.Exec(ctx, `INSERT INTO test_flakes (repository_id, scope, test_id, tested, sha, failed_build_id, passed_build_id, seen_time)
			SELECT CAST($1 AS BIGINT), CAST($2 AS TEXT), a.test_id, CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT)
			FROM test_results a `+where+` ORDER BY a.test_id LIMIT $8
			ON CONFLICT (repository_id, scope, test_id, tested) DO UPDATE SET seen_time = excluded.seen_time,
				failed_build_id = excluded.failed_build_id, passed_build_id = excluded.passed_build_id`, args...)
	}
	if err := flake(`WHERE a.run_id = $9 AND a.flaky`, b.GetId(), b.GetId(), id); err != nil {
		return err
	}
	type other struct {
		id    int64
		build string
	}
	scan := func(row sqldb.Row) (o other, err error) { return o, row.Scan(&o.id, &o.build) }
	others, err := sqldb.Collect(ctx, t, scan, `SELECT id, build_id FROM test_runs
		WHERE repository_id = $1 AND tested = $2 AND scope = $3 AND context = $4 AND ended AND id <> $5 AND create_time > $6 ORDER BY id DESC LIMIT $7`,
		repositoryID, what, scope, name, id, sqldb.Micros(t.Now.Add(-flakyFor)), maxCompared)
	if err != nil {
		return err
	}
	const both = `JOIN test_results p ON p.test_id = a.test_id AND p.run_id = $10 WHERE a.run_id = $9 AND a.state >= 3 AND p.state = 1`
	for _, o := range others {
		if err := errors.Join(flake(both, b.GetId(), o.build, id, o.id), flake(both, o.build, b.GetId(), o.id, id)); err != nil {
			return err
		}
	}
	return nil
}

// Supersede has a build's results count no more, since another attempt is to follow.
// They stay in the history of its tests.
func Supersede(ctx context.Context, t *store.Tx, buildID string) error {
	return t.Exec(ctx, `UPDATE test_runs SET latest = $2 WHERE build_id = $1 AND latest`, buildID, false)
}

// count counts the results of an attempt.
func count(ctx context.Context, q sqldb.Querier, runID int64) (*schedulerv1.TestSummary, error) {
	type group struct {
		state schedulerv1.Test_State
		count int64
	}
	scan := func(row sqldb.Row) (g group, err error) { return g, row.Scan(&g.state, &g.count) }
	groups, err := sqldb.Collect(ctx, q, scan, `SELECT state, count(*) FROM test_results WHERE run_id = $1 GROUP BY state`, runID)
	s := &schedulerv1.TestSummary{}
	for _, g := range groups {
		switch g.state {
		case schedulerv1.Test_STATE_PASSED:
			s.Passed = g.count
		case schedulerv1.Test_STATE_SKIPPED:
			s.Skipped = g.count
		case schedulerv1.Test_STATE_FAILED:
			s.Failed = g.count
		case schedulerv1.Test_STATE_ERRORED:
			s.Errored = g.count
		default:
			err = errors.Join(err, fmt.Errorf("results of the unknown state %d", g.state))
		}
	}
	return s, err
}
