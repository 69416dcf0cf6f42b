package tests

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// What is kept of one attempt, and of one text in bytes.
const (
	maxTests    = 200_000
	maxFindings = 5000
	maxMessages = 2000
	maxName     = 500
	maxMessage  = 4000
	maxLine     = 10_000_000
	// maxDuration of a test, in microseconds.
	maxDuration = int64(30*24*time.Hour) / int64(time.Microsecond)
	// slow is from which duration tests are listed as slow, in microseconds, as the
	// index has it.
	slow = 50_000
	// seenEvery is how seldom it is noted that a test still is.
	seenEvery = 7 * 24 * time.Hour
	// rowsOnce is how many rows one statement has. SQLite takes longer for each
	// parameter the more there are.
	rowsOnce = 50
)

// hash names a test, its repository included: one unique column finds it, by whatever
// statistics a database plans.
type hash [16]byte

// key names a test in its repository.
type key struct{ suite, class, name string }

func (k key) hash(repositoryID int64) hash {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s\x00%s", repositoryID, k.suite, k.class, k.name))
	return hash(sum[:16])
}

// Batch is what several reports of one attempt say.
type Batch struct {
	tests    map[key]*schedulerv1.Test
	order    []key // as they came, so that lists have them in the order of the files
	reported int64
	findings []*schedulerv1.Finding
	leftOut  int64
}

// Add takes a report. The text of it is cleaned, in place.
func (b *Batch) Add(r *schedulerv1.TestReport) {
	if b.tests == nil {
		b.tests = map[key]*schedulerv1.Test{}
	}
	for _, t := range r.GetTests() {
		clean(t)
		of := key{t.GetSuite(), t.GetClass(), t.GetName()}
		b.reported++
		if before := b.tests[of]; before != nil {
			t = worse(before, t)
		} else {
			b.order = append(b.order, of)
		}
		b.tests[of] = t
	}
	for _, f := range r.GetFindings() {
		f.Tool, f.Rule, f.File = line(f.GetTool()), line(f.GetRule()), line(f.GetFile())
		f.Message = lines(f.GetMessage())
		f.Line, f.EndLine = within(f.GetLine()), within(f.GetEndLine())
		if f.GetLevel() < schedulerv1.Finding_LEVEL_NOTE || f.GetLevel() > schedulerv1.Finding_LEVEL_ERROR {
			f.Level = schedulerv1.Finding_LEVEL_WARNING
		}
		b.findings = append(b.findings, f)
	}
	b.leftOut += max(r.GetLeftOut(), 0)
}

func clean(t *schedulerv1.Test) {
	t.Suite, t.Class, t.Name, t.File = line(t.GetSuite()), line(t.GetClass()), line(t.GetName()), line(t.GetFile())
	t.Message, t.Line = lines(t.GetMessage()), within(t.GetLine())
	if t.GetState() < schedulerv1.Test_STATE_PASSED || t.GetState() > schedulerv1.Test_STATE_ERRORED {
		t.State = schedulerv1.Test_STATE_ERRORED
	}
}

func within(line int32) int32 {
	if line < 0 || line > maxLine {
		return 0
	}
	return line
}

// line is a text as a database and a page take it, in one line.
func line(text string) string {
	return bounded(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text), maxName)
}

func lines(text string) string {
	return bounded(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text), maxMessage)
}

func bounded(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// worse is one result of two that came for one test: the worse of both.
func worse(a, b *schedulerv1.Test) *schedulerv1.Test {
	if b.GetState() > a.GetState() {
		a, b = b, a
	}
	a.Flaky = a.GetFlaky() || b.GetFlaky() || a.GetState() >= schedulerv1.Test_STATE_FAILED && b.GetState() == schedulerv1.Test_STATE_PASSED
	a.Message = cmp.Or(a.GetMessage(), b.GetMessage())
	if b.GetDuration().AsDuration() > a.GetDuration().AsDuration() {
		a.Duration = b.GetDuration()
	}
	return a
}

func micros(t *schedulerv1.Test) int64 {
	return min(max(t.GetDuration().AsDuration().Microseconds(), 0), maxDuration)
}

// Empty reports whether there is nothing to be stored.
func (b *Batch) Empty() bool { return len(b.tests)+len(b.findings) == 0 && b.leftOut == 0 }

// run is an attempt that has reported something.
type run struct {
	id                           int64
	reported, messages, findings int64
	leftOut                      int64
}

// Store stores a batch in the transaction in which its reports are acknowledged.
func (b *Batch) Store(ctx context.Context, t *store.Tx, policy trigger.Policy, build *store.Build, attempt int32) error {
	if b.Empty() {
		return nil
	}
	r, err := runOf(ctx, t, policy, build, attempt)
	if err != nil {
		return err
	}
	if over := r.reported + b.reported - maxTests; over > 0 { // a runner that keeps no bound
		b.order, b.reported, b.leftOut = nil, 0, b.leftOut+over
	}
	if room := max(maxFindings-r.findings, 0); int64(len(b.findings)) > room {
		b.leftOut += int64(len(b.findings)) - room
		b.findings = b.findings[:room]
	}
	ids, err := b.name(ctx, t, build.GetRepository().GetId())
	if err != nil {
		return err
	}
	if err := b.storeResults(ctx, t, r, ids); err != nil {
		return err
	}
	if err := b.storeFindings(ctx, t, r); err != nil {
		return err
	}
	return t.Exec(ctx, `UPDATE test_runs SET reported = reported + $2, messages = $3, findings = findings + $4, left_out = left_out + $5 WHERE id = $1`,
		r.id, b.reported, r.messages, len(b.findings), b.leftOut)
}

// runOf is the row of an attempt, made with its first results.
func runOf(ctx context.Context, t *store.Tx, policy trigger.Policy, b *store.Build, attempt int32) (*run, error) {
	scope, branch := scopeOf(policy, b)
	err := t.Exec(ctx, `INSERT INTO test_runs (build_id, attempt, latest, whole_id, repository_id, context, job, sha, tested, scope, pull_request, branch,
			create_time, reported, messages, findings, left_out, ended, passed, skipped, failed, errored)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0, 0, 0, $14, 0, 0, 0, 0) ON CONFLICT DO NOTHING`,
		b.GetId(), attempt, true, store.WholeID(b.GetId()), b.GetRepository().GetId(), b.GetContext(), b.GetJob(), b.GetSha(), tested(b),
		scope, b.GetPullRequest(), branch, sqldb.Micros(t.Now), false)
	if err != nil {
		return nil, err
	}
	r := &run{}
	err = t.QueryRowContext(ctx, `SELECT id, reported, messages, findings, left_out FROM test_runs WHERE build_id = $1 AND attempt = $2`,
		b.GetId(), attempt).Scan(&r.id, &r.reported, &r.messages, &r.findings, &r.leftOut)
	return r, err
}

// name finds the rows of tests, and makes those of new ones.
func (b *Batch) name(ctx context.Context, t *store.Tx, repositoryID int64) (map[key]int64, error) {
	ids := make(map[key]int64, len(b.order))
	var old []int64
	look := func(some []key) error {
		of := make(map[hash]key, len(some))
		args := make([]any, 0, len(some))
		for _, one := range some {
			hashed := one.hash(repositoryID)
			of[hashed] = one
			args = append(args, hashed[:])
		}
		found, err := namesOf(ctx, t, args)
		for _, n := range found {
			ids[of[hash(n.hash)]] = n.id
			if sqldb.Micros(t.Now.Add(-seenEvery)) > n.seen {
				old = append(old, n.id)
			}
		}
		return err
	}
	for some := range slices.Chunk(b.order, rowsOnce) {
		if err := look(some); err != nil {
			return nil, err
		}
		fresh := slices.DeleteFunc(slices.Clone(some), func(one key) bool { return ids[one] != 0 })
		if len(fresh) == 0 {
			continue
		}
		const columns = 6
		var args []any
		for _, one := range fresh {
			hashed := one.hash(repositoryID)
			args = append(args, repositoryID, hashed[:], one.suite, one.class, one.name, sqldb.Micros(t.Now))
		}
		rows := sqldb.RowMarks(len(fresh), columns)
		err := insert(ctx, t, len(fresh), `test_names (repository_id, hash, suite, class, name, seen_time) VALUES `+rows+` ON CONFLICT DO NOTHING`, args)
		if err != nil {
			return nil, err
		}
		if err := look(fresh); err != nil {
			return nil, err
		}
	}
	slices.Sort(old)
	for _, id := range old {
		if err := t.Exec(ctx, `UPDATE test_names SET seen_time = $2 WHERE id = $1`, id, sqldb.Micros(t.Now)); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// named is a test as it is stored.
type named struct {
	id, seen int64
	hash     []byte
}

// namesOf finds tests by their hashes.
func namesOf(ctx context.Context, t *store.Tx, hashes []any) ([]named, error) {
	scan := func(row sqldb.Row) (n named, err error) { return n, row.Scan(&n.id, &n.hash, &n.seen) }
	query := `SELECT id, hash, seen_time FROM test_names WHERE hash IN (` + sqldb.Marks(1, len(hashes)) + `)`
	if len(hashes) == rowsOnce { // the text of most is kept compiled
		return sqldb.Collect(ctx, t, scan, query, hashes...)
	}
	return sqldb.Collect(ctx, t.Tx.Tx, scan, query, hashes...)
}

func (b *Batch) storeResults(ctx context.Context, t *store.Tx, r *run, ids map[key]int64) error {
	for some := range slices.Chunk(b.order, rowsOnce) {
		const columns = 5
		var args, failures []any
		for _, one := range some {
			test := b.tests[one]
			args = append(args, ids[one], r.id, int32(test.GetState()), test.GetFlaky(), micros(test))
			failed := test.GetState() >= schedulerv1.Test_STATE_FAILED || test.GetFlaky()
			if failed && r.messages < maxMessages {
				r.messages++
				failures = append(failures, r.id, ids[one], test.GetFile(), test.GetLine(), test.GetMessage())
			}
		}
		err := insert(ctx, t, len(some), `test_results (test_id, run_id, state, flaky, duration) VALUES `+sqldb.RowMarks(len(some), columns)+`
			ON CONFLICT (test_id, run_id) DO UPDATE SET
				flaky = test_results.flaky OR excluded.flaky
					OR test_results.state = 1 AND excluded.state >= 3 OR test_results.state >= 3 AND excluded.state = 1,
				state = CASE WHEN excluded.state > test_results.state THEN excluded.state ELSE test_results.state END,
				duration = CASE WHEN excluded.duration > test_results.duration THEN excluded.duration ELSE test_results.duration END`, args)
		if err != nil {
			return err
		}
		if len(failures) == 0 {
			continue
		}
		rows := sqldb.RowMarks(len(failures)/columns, columns)
		if err := insert(ctx, t, len(failures)/columns, `test_failures (run_id, test_id, file, line, message) VALUES `+rows+` ON CONFLICT DO NOTHING`, failures); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) storeFindings(ctx context.Context, t *store.Tx, r *run) error {
	number := r.findings
	for some := range slices.Chunk(b.findings, rowsOnce) {
		const columns = 9
		var args []any
		for _, f := range some {
			number++
			args = append(args, r.id, number, int32(f.GetLevel()), f.GetTool(), f.GetRule(), f.GetFile(), f.GetLine(), f.GetEndLine(), f.GetMessage())
		}
		err := insert(ctx, t, len(some), `test_findings (run_id, number, level, tool, rule, file, line, end_line, message) VALUES `+sqldb.RowMarks(len(some), columns), args)
		if err != nil {
			return err
		}
	}
	return nil
}

// insert adds several rows. The text differs with their number: that of most is kept
// compiled.
func insert(ctx context.Context, t *store.Tx, count int, rows string, args []any) error {
	if count == rowsOnce {
		return t.Exec(ctx, "INSERT INTO "+rows, args...)
	}
	_, err := t.Tx.Tx.ExecContext(ctx, "INSERT INTO "+rows, args...) //nolint:gosec // literals of this file, and marks
	return err
}
