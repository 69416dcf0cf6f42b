package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// Never is the due time of a row with nothing to do.
const Never = math.MaxInt64

// DueMicros is a due time as stored; the zero time is never.
func DueMicros(t time.Time) int64 {
	if t.IsZero() {
		return Never
	}
	return sqldb.Micros(t)
}

// DueTime is a due time as it was before DueMicros.
func DueTime(micros int64) time.Time {
	if micros == Never {
		return time.Time{}
	}
	return sqldb.Time(micros)
}

// Store keeps what the scheduler knows. Its errors have the kinds of package
// fault.
type Store struct {
	DB  *sqldb.DB
	Now func() time.Time
	// Notifier tells those who wait in this process of what is committed, here or by
	// another replica.
	Notifier *Notifier
	// OnEnd, where it is set, is called once it is committed that a build has ended.
	OnEnd func(context.Context, *Build)
	// OnMove, where it is set, is called in the change by which a build, no job, comes to
	// another state.
	OnMove func(context.Context, *Tx, *Build) error
	// wake has the loop of a queue look at its rows; it may be called at any time.
	wake func(Queue)
}

// New returns the store of a database; wake has the loop of a queue look at its
// rows.
func New(db *sqldb.DB, now func() time.Time, wake func(Queue)) *Store {
	return &Store{DB: db, Now: now, Notifier: newNotifier(), wake: wake}
}

// Queue is a list of rows with a due time, on which a loop works.
type Queue int

// The queues.
const (
	StartQueue Queue = iota
	StopQueue
	TargetQueue
	PromotionQueue
	AnswerQueue
	ArchiveQueue
	ScheduleFileQueue
	NoticeQueue
)

// Tx is one change. It runs statements that are literal texts. Its methods return the database's errors as they are; they
// get their kinds in store.write.
type Tx struct {
	*sqldb.Tx
	// Locked ends a SELECT whose rows are about to be changed.
	Locked string
	// SkipLocked ends one that takes what no other replica is taking.
	SkipLocked string
	Now        time.Time
	store      *Store
	committed  []func()
	topics     []string
}

// OnCommit has a function called once the change is committed; never of one that
// is rolled back, nor of a try that was repeated.
func (t *Tx) OnCommit(do func()) { t.committed = append(t.committed, do) }

// Notify tells those who wait for a topic, once the change is committed: in this
// process at once, in those of other replicas when they next look.
func (t *Tx) Notify(topics ...string) { t.topics = append(t.topics, topics...) }

// Wake has the loop of a queue look at its rows, once the change is committed.
func (t *Tx) Wake(q Queue) { t.OnCommit(func() { t.store.wake(q) }) }

// Write makes a change in one transaction, which may be tried more than once.
func (s *Store) Write(ctx context.Context, do func(ctx context.Context, t *Tx) error) error {
	var committed []func()
	var topics []string
	err := s.DB.Write(ctx, func(ctx context.Context, raw *sql.Tx) error {
		t := &Tx{Tx: s.DB.Compiled(raw), Now: s.Now(), Locked: s.DB.Dialect.ForUpdate(), SkipLocked: s.DB.Dialect.SkipLocked(), store: s}
		if err := do(ctx, t); err != nil {
			return err
		}
		committed, topics = t.committed, t.topics
		return t.writeChanges(ctx, topics)
	})
	if err != nil {
		return sqldb.Kind(err)
	}
	for _, call := range committed {
		call()
	}
	s.Notifier.Notify(topics...)
	return nil
}

// Exec is ExecContext for those who do not look at the result.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, query, args...)
	return err
}

// Decision is what was decided about an event, by its delivery or, of a comment,
// by whichever delivery told of it; nil when nothing was.
func Decision(ctx context.Context, q sqldb.Querier, event *eventv1.Event) (*eventv1.Decision, error) {
	return sqldb.First(ctx, q, func(row sqldb.Row) (*eventv1.Decision, error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return nil, err
		}
		d := &eventv1.Decision{}
		return d, proto.Unmarshal(raw, d)
	}, `SELECT decision FROM decisions WHERE delivery_id = $1
		UNION ALL SELECT decision FROM answers WHERE comment = $2 LIMIT 1`,
		event.GetDeliveryId(), commentKey(event.GetRepository().GetId(), event.GetIssueComment().GetCommentId()))
}

// AddDecision stores what was decided about an event and, where it is a comment
// that is answered, that it is to be.
func (t *Tx) AddDecision(ctx context.Context, event *eventv1.Event, d *eventv1.Decision, answer *reporterv1.AnswerRequest) error {
	raw, err := proto.Marshal(d)
	if err != nil {
		return err
	}
	if answer != nil {
		if err := addAnswer(ctx, t, answer, raw, telemetry.Traceparent(ctx)); err != nil {
			return err
		}
	}
	return t.Exec(ctx, `INSERT INTO decisions (delivery_id, decision, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		event.GetDeliveryId(), raw, sqldb.Micros(t.Now))
}

// PullRequest locks what is known of a pull request; the zero update time says
// that nothing is.
func (t *Tx) PullRequest(ctx context.Context, repositoryID int64, number int32) (*PullRequest, error) {
	p, err := pullRequest(ctx, t, repositoryID, number)
	if errors.Is(err, sql.ErrNoRows) { // it was forgotten between the two statements
		p, err = pullRequest(ctx, t, repositoryID, number)
	}
	return p, err
}

func pullRequest(ctx context.Context, t *Tx, repositoryID int64, number int32) (*PullRequest, error) {
	err := t.Exec(ctx, `INSERT INTO pull_requests (repository_id, number, update_time, closed, moves)
		VALUES ($1, $2, 0, $3, '') ON CONFLICT DO NOTHING`, repositoryID, number, false)
	if err != nil {
		return nil, err
	}
	p := &PullRequest{repositoryID: repositoryID, Number: number}
	var update int64
	var moves string
	err = t.QueryRowContext(ctx, `SELECT update_time, closed, moves FROM pull_requests
		WHERE repository_id = $1 AND number = $2`+t.Locked, repositoryID, number).Scan(&update, &p.closed, &moves)
	p.Updated, p.headMoves = sqldb.Time(update), parseMoves(moves)
	return p, err
}

// SavePullRequest stores what is known of a pull request.
func (t *Tx) SavePullRequest(ctx context.Context, p *PullRequest) error {
	return t.Exec(ctx, `UPDATE pull_requests SET update_time = $3, closed = $4, moves = $5
		WHERE repository_id = $1 AND number = $2`,
		p.repositoryID, p.Number, sqldb.Micros(p.Updated), p.closed, formatMoves(p.headMoves))
}

// FreeLeases makes due what somebody was at work on. A SQLite file has one
// scheduler, so at its start a lease is a dead one's. On PostgreSQL other
// replicas hold leases, and a dead one's runs out by itself.
func (s *Store) FreeLeases(ctx context.Context) error {
	if s.DB.Dialect != sqldb.SQLite {
		return nil
	}
	err := s.Write(ctx, func(ctx context.Context, t *Tx) error {
		now := sqldb.Micros(t.Now)
		return errors.Join(
			t.Exec(ctx, `UPDATE builds SET due_time = $1 WHERE state = $2 AND due_time > $1 AND due_time < $3`,
				now, int32(schedulerv1.Build_STATE_STARTING), int64(Never)),
			t.Exec(ctx, `UPDATE attempts SET stop_time = $1 WHERE stop_time > $1 AND stop_time < $2 AND kept_until <= $1`, now, int64(Never)),
			t.Exec(ctx, `UPDATE targets SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(Never)),
			t.Exec(ctx, `UPDATE promotions SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(Never)),
			t.Exec(ctx, `UPDATE archives SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(Never)),
			t.Exec(ctx, `UPDATE answers SET due_time = $1 WHERE due_time > $1 AND due_time < $2`, now, int64(Never)),
			t.Exec(ctx, `UPDATE image_gate SET lease_time = $1 WHERE lease_time > $1`, now),
		)
	})
	if err != nil {
		return fmt.Errorf("free leases: %w", err)
	}
	return nil
}

// SplitRepository reads owner/name; fault.Invalid where it is not that.
func SplitRepository(repository string) (owner, name string, err error) {
	owner, name, ok := strings.Cut(repository, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fault.New(fault.Invalid, "repository: expected owner/name")
	}
	return owner, name, nil
}
