package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Service answers what is asked about tests.
type Service struct {
	schedulerv1.UnimplementedTestServiceServer
	store *store.Store
}

// New returns what answers; all it needs is in the store.
func New(s *store.Store) *Service { return &Service{store: s} }

// columns are what scanTest reads, of results r, attempts u, names n and failures f.
const columns = `r.run_id, r.test_id, r.state, r.flaky, r.duration, n.suite, n.class, n.name,
	u.build_id, u.job, u.attempt, u.sha, u.pull_request, u.branch, u.create_time,
	COALESCE(f.file, ''), COALESCE(f.line, 0), COALESCE(f.message, '')`

const joined = ` JOIN test_runs u ON u.id = r.run_id JOIN test_names n ON n.id = r.test_id
	LEFT JOIN test_failures f ON f.run_id = r.run_id AND f.test_id = r.test_id`

// own are the columns of a result itself.
const own = `run_id, test_id, state, flaky, duration`

// result is a row of a list, with what the next page begins after.
type result struct {
	*schedulerv1.Test
	run, test, micros int64
}

func scanTest(row sqldb.Row) (result, error) {
	r := result{Test: &schedulerv1.Test{}}
	var created int64
	err := row.Scan(&r.run, &r.test, &r.State, &r.Flaky, &r.micros, &r.Suite, &r.Class, &r.Name,
		&r.BuildId, &r.Job, &r.Attempt, &r.Sha, &r.PullRequest, &r.Branch, &created, &r.File, &r.Line, &r.Message)
	r.Duration = durationpb.New(time.Duration(r.micros) * time.Microsecond)
	r.CreateTime = timestamppb.New(sqldb.Time(created))
	return r, err
}

// runsOf are the latest attempts of a build with all its jobs, or of a job, that have
// reported something.
func runsOf(ctx context.Context, q sqldb.Querier, buildID string) ([]int64, error) {
	return sqldb.Collect(ctx, q, scanInt, `SELECT id FROM test_runs WHERE whole_id = $1 AND latest
		UNION SELECT id FROM test_runs WHERE build_id = $1 AND latest ORDER BY id`, buildID)
}

func scanInt(row sqldb.Row) (n int64, err error) { return n, row.Scan(&n) }

// ListTests lists the tests of a build.
func (s *Service) ListTests(ctx context.Context, req *schedulerv1.ListTestsRequest) (*schedulerv1.ListTestsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	pool := s.store.DB.Read()
	b, err := store.ReadBuild(ctx, pool, req.GetBuildId(), "")
	if err != nil {
		return nil, err
	}
	after := page{first: req.GetPageToken() == ""}
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.value, &after.run, &after.test); err != nil {
		return nil, err
	}
	runs, err := runsOf(ctx, pool, b.GetId())
	if err != nil {
		return nil, fmt.Errorf("tests of build %s: %w", b.GetId(), sqldb.Kind(err))
	}
	answer := &schedulerv1.ListTestsResponse{}
	if answer.Summary, err = s.summary(ctx, b, runs); err != nil {
		return nil, err
	}
	found, err := s.list(ctx, runs, req, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("tests of build %s: %w", b.GetId(), sqldb.Kind(err))
	}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last result) []any { return []any{byWhat(req.GetOrder()).of(last), last.run, last.test} })
	for _, one := range found {
		answer.Tests = append(answer.Tests, one.Test)
	}
	return answer, s.compare(ctx, b, found)
}

// page is what a page begins after.
type page struct {
	first            bool
	value, run, test int64
}

// order is what tests are listed by: the greatest first.
type order struct {
	column, condition string
	of                func(result) int64
}

func byWhat(o schedulerv1.ListTestsRequest_Order) order {
	if o == schedulerv1.ListTestsRequest_ORDER_SLOWEST {
		return order{"duration", fmt.Sprintf(" AND duration >= %d", slow), func(r result) int64 { return r.micros }}
	}
	return order{"state", "", func(r result) int64 { return int64(r.GetState()) }}
}

// list reads the next of each attempt by an index, and merges them.
func (s *Service) list(ctx context.Context, runs []int64, req *schedulerv1.ListTestsRequest, after page, limit int) ([]result, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	by := byWhat(req.GetOrder())
	var args []any
	arg := func(value any) string {
		args = append(args, value)
		return fmt.Sprintf("$%d", len(args))
	}
	limited, condition := arg(limit), by.condition
	if len(req.GetStates()) > 0 {
		var states []string
		for _, state := range req.GetStates() {
			states = append(states, arg(int32(state)))
		}
		condition += " AND state IN (" + strings.Join(states, ", ") + ")"
	}
	if !after.first {
		value := arg(after.value)
		condition += fmt.Sprintf(" AND %[1]s <= %[2]s AND (%[1]s < %[2]s OR run_id > %[3]s OR run_id = %[3]s AND test_id > %[4]s)",
			by.column, value, arg(after.run), arg(after.test))
	}
	var each []string
	for _, run := range runs {
		each = append(each, fmt.Sprintf(`SELECT `+own+` FROM (SELECT `+own+` FROM test_results WHERE run_id = %s%s ORDER BY %s DESC, test_id LIMIT %s) AS one`,
			arg(run), condition, by.column, limited))
	}
	query := `SELECT ` + columns + ` FROM (SELECT ` + own + ` FROM (` + strings.Join(each, " UNION ALL ") + `) AS all_of_them
		ORDER BY ` + by.column + ` DESC, run_id, test_id LIMIT ` + limited + `) AS r` + joined + ` ORDER BY r.` + by.column + ` DESC, r.run_id, r.test_id`
	return sqldb.Collect(ctx, s.store.DB.Read(), scanTest, query, args...)
}

// ListFindings lists what linters found in a build.
func (s *Service) ListFindings(ctx context.Context, req *schedulerv1.ListFindingsRequest) (*schedulerv1.ListFindingsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	pool := s.store.DB.Read()
	if _, err := store.ReadBuild(ctx, pool, req.GetBuildId(), ""); err != nil {
		return nil, err
	}
	level, run, number := int64(schedulerv1.Finding_LEVEL_ERROR)+1, int64(0), int64(0)
	if err := rpc.ParsePageToken(req.GetPageToken(), &level, &run, &number); err != nil {
		return nil, err
	}
	found, err := s.findings(ctx, req.GetBuildId(), level, run, number, size+1)
	if err != nil {
		return nil, fmt.Errorf("findings of build %s: %w", req.GetBuildId(), sqldb.Kind(err))
	}
	answer := &schedulerv1.ListFindingsResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last finding) []any { return []any{int64(last.GetLevel()), last.run, last.number} })
	for _, one := range found {
		answer.Findings = append(answer.Findings, one.Finding)
	}
	return answer, nil
}

type finding struct {
	*schedulerv1.Finding
	run, number int64
}

// findings are some hundreds in most builds, and 5,000 of an attempt at most.
func (s *Service) findings(ctx context.Context, buildID string, level, run, number int64, limit int) ([]finding, error) {
	scan := func(row sqldb.Row) (finding, error) {
		f := finding{Finding: &schedulerv1.Finding{}}
		err := row.Scan(&f.run, &f.number, &f.Level, &f.Tool, &f.Rule, &f.File, &f.Line, &f.EndLine, &f.Message, &f.BuildId, &f.Job)
		return f, err
	}
	return sqldb.Collect(ctx, s.store.DB.Read(), scan, `SELECT f.run_id, f.number, f.level, f.tool, f.rule, f.file, f.line, f.end_line, f.message, u.build_id, u.job
		FROM test_findings f JOIN test_runs u ON u.id = f.run_id WHERE (u.whole_id = $1 OR u.build_id = $1) AND u.latest
			AND (f.level < $2 OR f.level = $2 AND (f.run_id > $3 OR f.run_id = $3 AND f.number > $4))
		ORDER BY f.level DESC, f.run_id, f.number LIMIT $5`, buildID, level, run, number, limit)
}

// repositoryOf is the repository that has a name now.
func (s *Service) repositoryOf(ctx context.Context, name string) (id int64, err error) {
	if _, _, err := store.SplitRepository(name); err != nil {
		return 0, err
	}
	err = s.store.DB.Read().QueryRowContext(ctx, `SELECT repository_id FROM builds WHERE repository = $1 ORDER BY number DESC LIMIT 1`, strings.ToLower(name)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fault.Newf(fault.NotFound, "nothing was built of %s", name)
	}
	return id, sqldb.Kind(err)
}
