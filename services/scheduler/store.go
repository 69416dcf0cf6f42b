package scheduler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// never is the due time of a row with nothing to do.
const never = math.MaxInt64

// dueMicros is a due time as stored; the zero time is never.
func dueMicros(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return sqldb.Micros(t)
}

func dueTime(micros int64) time.Time {
	if micros == never {
		return time.Time{}
	}
	return sqldb.Time(micros)
}

// store keeps what the scheduler knows. Its errors have the kinds of package
// fault.
type store struct {
	db  *sqldb.DB
	now func() time.Time
}

// tx is one change. It runs statements that are literal texts. Its methods return the database's errors as they are; they
// get their kinds in store.write.
type tx struct {
	*sqldb.Tx
	// locked ends a SELECT whose rows are about to be changed.
	locked string
	// skipLocked ends one that takes what no other replica is taking.
	skipLocked string
	now        time.Time
	news       news
}

// news is what a change brings to those who wait in this process.
type news struct {
	topics                                                []string
	printed                                               []addition
	starts, stops, reports, promotions, answers, archives bool
}

func (s *store) write(ctx context.Context, do func(ctx context.Context, t *tx) error) (news, error) {
	var said news
	err := s.db.Write(ctx, func(ctx context.Context, raw *sql.Tx) error {
		t := &tx{Tx: s.db.Compiled(raw), now: s.now(), skipLocked: s.db.Dialect.SkipLocked()}
		if s.db.Dialect == sqldb.Postgres {
			t.locked = " FOR UPDATE"
		}
		err := do(ctx, t)
		said = t.news
		return err
	})
	return said, sqldb.Kind(err)
}

// exec is ExecContext for those who do not look at the result.
func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, query, args...)
	return err
}

// querier is a transaction, or the pool for reads.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is one row of a result.
type scanner interface{ Scan(dest ...any) error }

// collect reads all rows.
func collect[R any](ctx context.Context, q querier, scan func(scanner) (R, error), query string, args ...any) (_ []R, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all []R
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// decision is what was decided about an event, by its delivery or, of a comment,
// by whichever delivery told of it; nil when nothing was.
func decision(ctx context.Context, q querier, event *eventv1.Event) (*eventv1.Decision, error) {
	var raw []byte
	err := q.QueryRowContext(ctx, `SELECT decision FROM decisions WHERE delivery_id = $1
		UNION ALL SELECT decision FROM answers WHERE comment = $2 LIMIT 1`,
		event.GetDeliveryId(), commentKey(event.GetRepository().GetId(), event.GetIssueComment().GetCommentId())).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	if err != nil {
		return nil, err
	}
	d := &eventv1.Decision{}
	return d, proto.Unmarshal(raw, d)
}

// addDecision stores what was decided about an event and, where it is a comment
// that is answered, that it is to be.
func (t *tx) addDecision(ctx context.Context, event *eventv1.Event, d *eventv1.Decision, answer *reporterv1.AnswerRequest) error {
	raw, err := proto.Marshal(d)
	if err != nil {
		return err
	}
	if answer != nil {
		if err := t.addAnswer(ctx, answer, raw, telemetry.Traceparent(ctx)); err != nil {
			return err
		}
	}
	return t.exec(ctx, `INSERT INTO decisions (delivery_id, decision, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		event.GetDeliveryId(), raw, sqldb.Micros(t.now))
}

// pullRequest locks what is known of a pull request; the zero update time says
// that nothing is.
func (t *tx) pullRequest(ctx context.Context, repositoryID int64, number int32) (*pullRequest, error) {
	err := t.exec(ctx, `INSERT INTO pull_requests (repository_id, number, update_time, closed, moves)
		VALUES ($1, $2, 0, $3, '') ON CONFLICT DO NOTHING`, repositoryID, number, false)
	if err != nil {
		return nil, err
	}
	p := &pullRequest{repositoryID: repositoryID, number: number}
	var update int64
	var moves string
	err = t.QueryRowContext(ctx, `SELECT update_time, closed, moves FROM pull_requests
		WHERE repository_id = $1 AND number = $2`+t.locked, repositoryID, number).Scan(&update, &p.closed, &moves)
	p.updated, p.moves = sqldb.Time(update), parseMoves(moves)
	return p, err
}

func (t *tx) savePullRequest(ctx context.Context, p *pullRequest) error {
	return t.exec(ctx, `UPDATE pull_requests SET update_time = $3, closed = $4, moves = $5
		WHERE repository_id = $1 AND number = $2`,
		p.repositoryID, p.number, sqldb.Micros(p.updated), p.closed, formatMoves(p.moves))
}

// freeLeases makes due what somebody was at work on. A SQLite file has one
// scheduler, so at its start a lease is a dead one's. On PostgreSQL other
// replicas hold leases, and a dead one's runs out by itself.
func (s *store) freeLeases(ctx context.Context) error {
	if s.db.Dialect != sqldb.SQLite {
		return nil
	}
	_, err := s.write(ctx, func(ctx context.Context, t *tx) error {
		now := sqldb.Micros(t.now)
		return errors.Join(
			t.exec(ctx, `UPDATE builds SET due_time = $1 WHERE state = $2 AND due_time > $1 AND due_time < $3`,
				now, int32(schedulerv1.Build_STATE_STARTING), int64(never)),
			t.exec(ctx, `UPDATE attempts SET stop_time = $1 WHERE stop_time > $1 AND stop_time < $2`, now, int64(never)),
			t.exec(ctx, `UPDATE targets SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(never)),
			t.exec(ctx, `UPDATE promotions SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(never)),
			t.exec(ctx, `UPDATE archives SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(never)),
			t.exec(ctx, `UPDATE answers SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(never)),
		)
	})
	if err != nil {
		return fmt.Errorf("free leases: %w", err)
	}
	return nil
}
