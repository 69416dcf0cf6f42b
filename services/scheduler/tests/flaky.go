package tests

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ListFlakyTests lists the tests that have passed and failed on one commit lately.
func (s *Service) ListFlakyTests(ctx context.Context, req *schedulerv1.ListFlakyTestsRequest) (*schedulerv1.ListFlakyTestsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	repositoryID, err := s.repositoryOf(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	if req.GetPullRequest() < 0 {
		return nil, fault.New(fault.Invalid, "pull_request: expected a number")
	}
	scope := mainScope
	if req.GetPullRequest() > 0 {
		scope = pullScope(req.GetPullRequest())
	}
	const all = int64(1) << 62
	commits, after := all, int64(0)
	if err := rpc.ParsePageToken(req.GetPageToken(), &commits, &after); err != nil {
		return nil, err
	}
	type flake struct {
		*schedulerv1.FlakyTest
		test, seen int64
	}
	scan := func(row sqldb.Row) (flake, error) {
		f := flake{FlakyTest: &schedulerv1.FlakyTest{}}
		err := row.Scan(&f.test, &f.Commits, &f.seen, &f.Suite, &f.Class, &f.Name, &f.Sha, &f.FailedBuildId, &f.PassedBuildId)
		f.LastTime = timestamppb.New(sqldb.Time(f.seen))
		return f, err
	}
	found, err := sqldb.Collect(ctx, s.store.DB.Read(), scan, `SELECT g.test_id, g.commits, g.seen, n.suite, n.class, n.name, k.sha, k.failed_build_id, k.passed_build_id
		FROM (SELECT test_id, count(*) AS commits, max(seen_time) AS seen FROM test_flakes
			WHERE repository_id = $1 AND scope = $2 AND seen_time > $3 GROUP BY test_id
			HAVING count(*) < $4 OR count(*) = $4 AND test_id > $5 ORDER BY count(*) DESC, test_id LIMIT $6) AS g
		JOIN test_names n ON n.id = g.test_id
		JOIN test_flakes k ON k.repository_id = $1 AND k.scope = $2 AND k.test_id = g.test_id
			AND k.tested = (SELECT max(tested) FROM test_flakes WHERE repository_id = $1 AND scope = $2 AND test_id = g.test_id AND seen_time = g.seen)
		ORDER BY g.commits DESC, g.test_id`,
		repositoryID, scope, sqldb.Micros(s.store.Now().Add(-flakyFor)), commits, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("flaky tests of %s: %w", req.GetRepository(), sqldb.Kind(err))
	}
	answer := &schedulerv1.ListFlakyTestsResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last flake) []any { return []any{last.GetCommits(), last.test} })
	for _, one := range found {
		answer.Tests = append(answer.Tests, one.FlakyTest)
	}
	return answer, nil
}

// maxNamesakes is how many tests of one name a history has.
const maxNamesakes = 20

// ListTestHistory lists the results of a test, newest first.
func (s *Service) ListTestHistory(ctx context.Context, req *schedulerv1.ListTestHistoryRequest) (*schedulerv1.ListTestHistoryResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetName() == "" {
		return nil, fault.New(fault.Invalid, "name: expected that of a test, as reports have it")
	}
	repositoryID, err := s.repositoryOf(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	pool := s.store.DB.Read()
	named, err := sqldb.Collect(ctx, pool, scanInt, `SELECT id FROM test_names WHERE repository_id = $1 AND name = $2
		AND ($3 = '' OR class = $3) AND ($4 = '' OR suite = $4) ORDER BY seen_time DESC, id LIMIT $5`,
		repositoryID, req.GetName(), req.GetClass(), req.GetSuite(), maxNamesakes)
	if err != nil {
		return nil, fmt.Errorf("history of a test of %s: %w", req.GetRepository(), sqldb.Kind(err))
	}
	if len(named) == 0 {
		return nil, fault.Newf(fault.NotFound, "%s has no test %q, or its builds were pruned", req.GetRepository(), req.GetName())
	}
	run, test := int64(1)<<62, int64(0)
	if err := rpc.ParsePageToken(req.GetPageToken(), &run, &test); err != nil {
		return nil, err
	}
	args, marks, _ := lists(named, nil)
	at := len(args)
	args = append(args, run, test, size+1)
	found, err := sqldb.Collect(ctx, pool, scanTest, fmt.Sprintf(`SELECT `+columns+` FROM test_results r`+joined+`
		WHERE r.test_id IN (%s) AND (r.run_id < $%[2]d OR r.run_id = $%[2]d AND r.test_id > $%[3]d) ORDER BY r.run_id DESC, r.test_id LIMIT $%[4]d`,
		marks, at+1, at+2, at+3), args...)
	if err != nil {
		return nil, fmt.Errorf("history of a test of %s: %w", req.GetRepository(), sqldb.Kind(err))
	}
	answer := &schedulerv1.ListTestHistoryResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last result) []any { return []any{last.run, last.test} })
	for _, one := range found {
		answer.Tests = append(answer.Tests, one.Test)
	}
	return answer, nil
}
