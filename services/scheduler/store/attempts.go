package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Attempt is one try at running a build, in a container of its own.
type Attempt struct {
	BuildID  string
	Number   int32
	Placed   bool   // the engine has said that it started
	RunnerID string // empty until one has said hello
	Sequence int64  // the last report stored
	LogSize  int64
	Spans    int64     // how many of its tools' were taken
	Contact  time.Time // when the runner was heard last, or the container started
	Deadline time.Time // zero: none yet
	Ended    bool      // nothing more is taken from its runner
	Machine  string    // the host it is on, where its engine has several
	Asked    time.Time // since when the engine is asked to start it; zero where nobody knows
	Keeps    bool      // its runner can keep the container
	Kept     time.Time // until when the container is kept, or was; zero where it was not
}

// Name is what engines know the attempt by.
func (a *Attempt) Name() string { return AttemptName(a.BuildID, a.Number) }

// AttemptName is what engines know an attempt by.
func AttemptName(buildID string, number int32) string {
	return buildID + "-" + strconv.Itoa(int(number))
}

// AttemptColumns are what scanAttempt reads.
const AttemptColumns = `build_id, attempt, placed, runner_id, sequence, log_size, contact_time, deadline, ended, machine, asked_time, spans, keeps, kept_until`

func scanAttempt(row sqldb.Row) (*Attempt, error) {
	a := &Attempt{}
	var contact, deadline, asked, kept int64
	err := row.Scan(&a.BuildID, &a.Number, &a.Placed, &a.RunnerID, &a.Sequence, &a.LogSize, &contact, &deadline, &a.Ended, &a.Machine, &asked, &a.Spans, &a.Keeps, &kept)
	a.Contact, a.Deadline, a.Asked, a.Kept = sqldb.Time(contact), DueTime(deadline), sqldb.Time(asked), sqldb.Time(kept)
	return a, err
}

// ReadAttempt is fault.NotFound where there is none.
func ReadAttempt(ctx context.Context, q sqldb.Querier, buildID string, number int32, locked string) (*Attempt, error) {
	a, err := scanAttempt(q.QueryRowContext(ctx, `SELECT `+AttemptColumns+` FROM attempts
		WHERE build_id = $1 AND attempt = $2`+locked, buildID, number))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "build %s has no attempt %d", buildID, number)
	}
	if err != nil {
		return nil, fmt.Errorf("attempt %s: %w", AttemptName(buildID, number), sqldb.Kind(err))
	}
	return a, nil
}

// ReadAttempts finds those of several attempts that there are.
func (s *Store) ReadAttempts(ctx context.Context, of []AttemptKey) ([]*Attempt, error) {
	args := make([]any, 0, 2*len(of))
	for _, key := range of {
		args = append(args, key.BuildID, key.Number)
	}
	found, err := sqldb.Collect(ctx, s.DB.Read(), scanAttempt, `SELECT `+AttemptColumns+` FROM attempts
		WHERE (build_id, attempt) IN (`+sqldb.RowMarks(len(of), 2)+`)`, args...)
	return found, sqldb.Kind(err)
}

// Attempt locks an attempt.
func (t *Tx) Attempt(ctx context.Context, buildID string, number int32) (*Attempt, error) {
	return ReadAttempt(ctx, t, buildID, number, t.Locked)
}

// BuildOf locks an attempt's build, or job, and then the attempt, which is the order for
// whoever locks both.
func BuildOf(ctx context.Context, t *Tx, buildID string, number int32) (*Build, *Attempt, error) {
	b, err := t.Build(ctx, buildID)
	if err != nil {
		return nil, nil, err
	}
	a, err := t.Attempt(ctx, buildID, number)
	if err != nil {
		return nil, nil, err
	}
	return b, a, nil
}

// AddAttempt stores a new attempt, of which no runner has been heard.
func (t *Tx) AddAttempt(ctx context.Context, buildID string, number int32) error {
	return t.Exec(ctx, `INSERT INTO attempts (`+AttemptColumns+`, stop_time, stop_tries)
		VALUES ($1, $2, $3, '', 0, 0, 0, $4, $3, '', $5, 0, $3, 0, $4, 0)`, buildID, number, false, int64(Never), sqldb.Micros(t.Now))
}

// AskAnew has the time begin anew in which the engine is to have started it.
func (a *Attempt) AskAnew(ctx context.Context, t *Tx) error {
	return t.Exec(ctx, `UPDATE attempts SET asked_time = $3 WHERE build_id = $1 AND attempt = $2`, a.BuildID, a.Number, sqldb.Micros(t.Now))
}

// SetMachine stores where its container is.
func (a *Attempt) SetMachine(ctx context.Context, t *Tx, machine string) error {
	t.Notify(BuildTopic(a.BuildID))
	return t.Exec(ctx, `UPDATE attempts SET machine = $3 WHERE build_id = $1 AND attempt = $2`, a.BuildID, a.Number, machine)
}

// SaveAttempt stores an attempt as it is now.
func (t *Tx) SaveAttempt(ctx context.Context, a *Attempt) error {
	return t.Exec(ctx, `UPDATE attempts SET placed = $3, runner_id = $4, sequence = $5, log_size = $6,
		contact_time = $7, deadline = $8, ended = $9, spans = $10, keeps = $11 WHERE build_id = $1 AND attempt = $2`,
		a.BuildID, a.Number, a.Placed, a.RunnerID, a.Sequence, a.LogSize,
		sqldb.Micros(a.Contact), DueMicros(a.Deadline), a.Ended, a.Spans, a.Keeps)
}

// NotePlaced stores that the engine has started an attempt whose build still
// waits for that; false where it does not. Its runner is awaited until the deadline.
func (t *Tx) NotePlaced(ctx context.Context, buildID string, number int32, deadline time.Time) (bool, error) {
	starting, err := t.ExecContext(ctx, `UPDATE builds SET due_time = $3, tries = 0 WHERE id = $1 AND state = $4
		AND EXISTS (SELECT 1 FROM attempts WHERE build_id = $1 AND attempt = $2 AND NOT ended)`,
		buildID, number, int64(Never), int32(schedulerv1.Build_STATE_STARTING))
	if err != nil {
		return false, err
	}
	if n, err := starting.RowsAffected(); n == 0 || err != nil {
		return false, err
	}
	return true, t.Exec(ctx, `UPDATE attempts SET placed = $3, contact_time = $4, deadline = $5 WHERE build_id = $1 AND attempt = $2`,
		buildID, number, true, sqldb.Micros(t.Now), sqldb.Micros(deadline))
}

// LiveAttempts are those of which more is to come.
func (s *Store) LiveAttempts(ctx context.Context) ([]*Attempt, error) {
	all, err := sqldb.Collect(ctx, s.DB.Read(), scanAttempt, `SELECT `+AttemptColumns+` FROM attempts WHERE NOT ended`)
	return all, sqldb.Kind(err)
}

// AddToken lets whoever has the token of this hash attach to an attempt.
func (t *Tx) AddToken(ctx context.Context, hash []byte, buildID string, number int32) error {
	return t.Exec(ctx, `INSERT INTO tokens (hash, build_id, attempt) VALUES ($1, $2, $3)`, hash, buildID, number)
}

// AttemptByToken is fault.Unauthenticated where the token is nobody's.
func (s *Store) AttemptByToken(ctx context.Context, hash []byte) (buildID string, number int32, err error) {
	err = s.DB.Read().QueryRowContext(ctx, `SELECT build_id, attempt FROM tokens WHERE hash = $1`, hash).Scan(&buildID, &number)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, fault.New(fault.Unauthenticated, "the runner token is not one of an attempt of ours")
	}
	return buildID, number, sqldb.Kind(err)
}

// Stop is a container to be removed.
type Stop struct {
	BuildID string
	Attempt int32
	Tries   int
}

func scanStop(row sqldb.Row) (Stop, error) {
	var s Stop
	err := row.Scan(&s.BuildID, &s.Attempt, &s.Tries)
	return s, err
}

// StopSoon has the engine asked to remove an attempt's container.
func (t *Tx) StopSoon(ctx context.Context, buildID string, number int32) error {
	t.Wake(StopQueue)
	return t.Exec(ctx, `UPDATE attempts SET stop_time = $3, stop_tries = 0,
			stop_asked_time = CASE WHEN stop_time < $4 AND stop_asked_time > 0 THEN stop_asked_time ELSE $3 END
		WHERE build_id = $1 AND attempt = $2`, buildID, number, sqldb.Micros(t.Now), int64(Never))
}

// StopLeftover is StopSoon of an attempt whose container is not being removed.
func StopLeftover(ctx context.Context, t *Tx, buildID string, number int32) error {
	t.Wake(StopQueue)
	return t.Exec(ctx, `UPDATE attempts SET stop_time = $3, stop_tries = 0, stop_asked_time = $3 WHERE build_id = $1 AND attempt = $2 AND stop_time = $4`,
		buildID, number, sqldb.Micros(t.Now), int64(Never))
}

// ClaimStops leases the containers that are due to be removed.
func (s *Store) ClaimStops(ctx context.Context, limit int) ([]Stop, error) {
	return Claim(ctx, s, limit, scanStop, `SELECT build_id, attempt, stop_tries FROM attempts
		WHERE stop_time <= $1 AND stop_time < 9223372036854775807 ORDER BY stop_time LIMIT $2`, func(ctx context.Context, t *Tx, c Stop, until time.Time) error {
		return c.Settle(ctx, t, until)
	})
}

// RenewStop keeps a claimed stop while the engine takes its time.
func (s *Store) RenewStop(ctx context.Context, c Stop) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		return t.Exec(ctx, `UPDATE attempts SET stop_time = $3 WHERE build_id = $1 AND attempt = $2 AND stop_time < $4`,
			c.BuildID, c.Attempt, sqldb.Micros(t.Now.Add(due.Lease)), int64(Never))
	})
}

// Settle says when the engine is asked again; the zero time: never.
func (c Stop) Settle(ctx context.Context, t *Tx, again time.Time) error {
	return t.Exec(ctx, `UPDATE attempts SET stop_time = $3, stop_tries = $4 WHERE build_id = $1 AND attempt = $2`,
		c.BuildID, c.Attempt, DueMicros(again), c.Tries+1)
}

func scanStep(row sqldb.Row) (*schedulerv1.Step, error) {
	var raw []byte
	if err := row.Scan(&raw); err != nil {
		return nil, err
	}
	step := &schedulerv1.Step{}
	return step, proto.Unmarshal(raw, step)
}

// BegunSteps are the steps that a runner has told of, in order.
func BegunSteps(ctx context.Context, q sqldb.Querier, buildID string, number int32) ([]*schedulerv1.Step, error) {
	return sqldb.Collect(ctx, q, scanStep, `SELECT step FROM steps WHERE build_id = $1 AND attempt = $2 ORDER BY number`, buildID, number)
}

// SaveStep stores a step of an attempt as it is now.
func (t *Tx) SaveStep(ctx context.Context, a *Attempt, step *schedulerv1.Step) error {
	raw, err := proto.Marshal(step)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO steps (build_id, attempt, number, step) VALUES ($1, $2, $3, $4)
		ON CONFLICT (build_id, attempt, number) DO UPDATE SET step = excluded.step`,
		a.BuildID, a.Number, step.GetNumber(), raw)
}

// KnownAttempt splits the name of an attempt.
func KnownAttempt(name string) (buildID string, number int32, ok bool) {
	at := strings.LastIndex(name, "-")
	if at < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[at+1:], 10, 32)
	return name[:at], int32(n), err == nil
}
