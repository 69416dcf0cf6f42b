package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// maxHeldAgainstBase is how many failures are held against the base branch.
	maxHeldAgainstBase = 1000
	// What a report for GitHub has.
	toldTests, toldFindings, toldMessage = 50, 50, 1000
)

// summary counts what the attempts of a build have reported.
func (s *Service) summary(ctx context.Context, b *store.Build, runs []int64) (*schedulerv1.TestSummary, error) {
	sum := &schedulerv1.TestSummary{BaseRef: b.GetBaseRef()}
	pool := s.store.DB.Read()
	for _, run := range runs {
		one := &schedulerv1.TestSummary{}
		var ended bool
		err := pool.QueryRowContext(ctx, `SELECT ended, passed, skipped, failed, errored, findings, left_out FROM test_runs WHERE id = $1`, run).
			Scan(&ended, &one.Passed, &one.Skipped, &one.Failed, &one.Errored, &one.Findings, &one.LeftOut)
		if errors.Is(err, sql.ErrNoRows) { // pruned meanwhile
			continue
		}
		sum.Findings += one.GetFindings()
		sum.LeftOut += one.GetLeftOut()
		if err == nil && !ended {
			one, err = count(ctx, pool, run)
		}
		if err != nil {
			return nil, fmt.Errorf("summary of build %s: %w", b.GetId(), sqldb.Kind(err))
		}
		sum.Passed += one.GetPassed()
		sum.Skipped += one.GetSkipped()
		sum.Failed += one.GetFailed()
		sum.Errored += one.GetErrored()
	}
	if len(runs) == 0 {
		return sum, nil
	}
	err := pool.QueryRowContext(ctx, `SELECT count(DISTINCT k.test_id) FROM test_runs u JOIN test_flakes k ON k.repository_id = u.repository_id
			AND k.tested = u.tested AND k.scope = u.scope
		WHERE u.id = $1`, runs[0]).Scan(&sum.Flaky)
	if err != nil {
		return nil, fmt.Errorf("summary of build %s: %w", b.GetId(), sqldb.Kind(err))
	}
	bad := sum.GetFailed() + sum.GetErrored()
	if bad == 0 || bad > maxHeldAgainstBase {
		return sum, nil
	}
	base, err := s.baseRuns(ctx, b)
	if err != nil || len(base) == 0 {
		return sum, err
	}
	args, mine, theirs := lists(runs, base)
	var also int64
	err = pool.QueryRowContext(ctx, `SELECT count(*) FROM test_results r WHERE r.run_id IN (`+mine+`) AND r.state >= 3
		AND EXISTS (SELECT 1 FROM test_results m WHERE m.test_id = r.test_id AND m.run_id IN (`+theirs+`) AND m.state >= 3)`, args...).Scan(&also)
	sum.FailsOnBase = &also
	return sum, sqldb.Kind(err)
}

// lists are the parameters of two lists of numbers.
func lists(a, b []int64) (args []any, first, second string) {
	for _, n := range slices.Concat(a, b) {
		args = append(args, n)
	}
	return args, sqldb.Marks(1, len(a)), sqldb.Marks(1+len(a), len(b))
}

// baseRuns are those of the newest build of a pull request's base branch that has
// ended and reported something, of main's scope alone: no pull request has a say in it.
func (s *Service) baseRuns(ctx context.Context, b *store.Build) ([]int64, error) {
	if b.GetPullRequest() == 0 || b.GetEnvironment() != "" || b.GetBaseRef() == "" {
		return nil, nil
	}
	pool := s.store.DB.Read()
	var whole string
	err := pool.QueryRowContext(ctx, `SELECT u.whole_id FROM test_runs u JOIN builds b ON b.id = u.whole_id
		WHERE u.repository_id = $1 AND u.scope = $2 AND u.branch = $3 AND u.ended AND u.reported > 0 AND b.state >= $4 ORDER BY u.id DESC LIMIT 1`,
		b.GetRepository().GetId(), mainScope, b.GetBaseRef(), int32(schedulerv1.Build_STATE_PASSED)).Scan(&whole)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	runs, err := runsOf(ctx, pool, whole)
	return runs, sqldb.Kind(err)
}

// compare notes of tests that did not pass whether they did on the base branch.
func (s *Service) compare(ctx context.Context, b *store.Build, found []result) error {
	var bad []int64
	for _, one := range found {
		if one.GetState() >= schedulerv1.Test_STATE_FAILED {
			bad = append(bad, one.test)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	base, err := s.baseRuns(ctx, b)
	if err != nil || len(base) == 0 {
		return err
	}
	args, mine, theirs := lists(bad, base)
	also, err := sqldb.Collect(ctx, s.store.DB.Read(), scanInt, `SELECT DISTINCT test_id FROM test_results
		WHERE test_id IN (`+mine+`) AND run_id IN (`+theirs+`) AND state >= 3`, args...)
	for _, one := range found {
		one.FailsOnBase = one.GetState() >= schedulerv1.Test_STATE_FAILED && slices.Contains(also, one.test)
	}
	return sqldb.Kind(err)
}

// ForReport is what GitHub is told of the tests of a build that has ended; nil where
// they have reported nothing.
func (s *Service) ForReport(ctx context.Context, b *schedulerv1.Build) (*reporterv1.ReportRequest_Tests, error) {
	if !store.Ended(b.GetState()) {
		return nil, nil //nolint:nilnil // nothing is told yet
	}
	runs, err := runsOf(ctx, s.store.DB.Read(), b.GetId())
	if err != nil || len(runs) == 0 {
		return nil, sqldb.Kind(err)
	}
	told := &reporterv1.ReportRequest_Tests{}
	stored := &store.Build{Build: b}
	if told.Summary, err = s.summary(ctx, stored, runs); err != nil {
		return nil, err
	}
	failed, err := s.list(ctx, runs, &schedulerv1.ListTestsRequest{
		States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED},
	}, page{first: true}, toldTests)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	if err := s.compare(ctx, stored, failed); err != nil {
		return nil, err
	}
	for _, one := range failed {
		one.Message = bounded(one.GetMessage(), toldMessage)
		told.Failed = append(told.Failed, one.Test)
	}
	found, err := s.findings(ctx, b.GetId(), int64(schedulerv1.Finding_LEVEL_ERROR)+1, 0, 0, toldFindings)
	for _, one := range found {
		one.Message = bounded(one.GetMessage(), toldMessage)
		told.Findings = append(told.Findings, one.Finding)
	}
	return told, sqldb.Kind(err)
}
