package scheduler

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

// attempt is one try at running a build, in a container of its own.
type attempt struct {
	buildID  string
	number   int32
	placed   bool   // the engine has said that it started
	runnerID string // empty until one has said hello
	sequence int64  // the last report stored
	logSize  int64
	contact  time.Time // when the runner was heard last, or the container started
	deadline time.Time // zero: none yet
	ended    bool      // nothing more is taken from its runner
}

// name is what engines know the attempt by.
func (a *attempt) name() string { return attemptName(a.buildID, a.number) }

func attemptName(buildID string, number int32) string {
	return buildID + "-" + strconv.Itoa(int(number))
}

const attemptColumns = `build_id, attempt, placed, runner_id, sequence, log_size, contact_time, deadline, ended`

func scanAttempt(row scanner) (*attempt, error) {
	a := &attempt{}
	var contact, deadline int64
	err := row.Scan(&a.buildID, &a.number, &a.placed, &a.runnerID, &a.sequence, &a.logSize, &contact, &deadline, &a.ended)
	a.contact, a.deadline = sqldb.Time(contact), dueTime(deadline)
	return a, err
}

func readAttempt(ctx context.Context, q querier, buildID string, number int32, locked string) (*attempt, error) {
	a, err := scanAttempt(q.QueryRowContext(ctx, `SELECT `+attemptColumns+` FROM attempts
		WHERE build_id = $1 AND attempt = $2`+locked, buildID, number))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "build %s has no attempt %d", buildID, number)
	}
	if err != nil {
		return nil, fmt.Errorf("attempt %s: %w", attemptName(buildID, number), sqldb.Kind(err))
	}
	return a, nil
}

// attempt locks an attempt.
func (t *tx) attempt(ctx context.Context, buildID string, number int32) (*attempt, error) {
	return readAttempt(ctx, t, buildID, number, t.locked)
}

func (t *tx) addAttempt(ctx context.Context, buildID string, number int32) error {
	return t.exec(ctx, `INSERT INTO attempts (`+attemptColumns+`, stop_time, stop_tries)
		VALUES ($1, $2, $3, '', 0, 0, 0, $4, $3, $4, 0)`, buildID, number, false, int64(never))
}

func (t *tx) saveAttempt(ctx context.Context, a *attempt) error {
	return t.exec(ctx, `UPDATE attempts SET placed = $3, runner_id = $4, sequence = $5, log_size = $6,
		contact_time = $7, deadline = $8, ended = $9 WHERE build_id = $1 AND attempt = $2`,
		a.buildID, a.number, a.placed, a.runnerID, a.sequence, a.logSize,
		sqldb.Micros(a.contact), dueMicros(a.deadline), a.ended)
}

// notePlaced stores that the engine has started an attempt whose build still
// waits for that; false where it does not.
func (t *tx) notePlaced(ctx context.Context, buildID string, number int32) (bool, error) {
	starting, err := t.ExecContext(ctx, `UPDATE builds SET due_time = $3, tries = 0 WHERE id = $1 AND state = $4
		AND EXISTS (SELECT 1 FROM attempts WHERE build_id = $1 AND attempt = $2 AND NOT ended)`,
		buildID, number, int64(never), int32(schedulerv1.Build_STATE_STARTING))
	if err != nil {
		return false, err
	}
	if n, err := starting.RowsAffected(); n == 0 || err != nil {
		return false, err
	}
	return true, t.exec(ctx, `UPDATE attempts SET placed = $3, contact_time = $4, deadline = $5 WHERE build_id = $1 AND attempt = $2`,
		buildID, number, true, sqldb.Micros(t.now), sqldb.Micros(t.now.Add(attachWithin)))
}

// heard stores that a runner was heard.
func (t *tx) heard(ctx context.Context, buildID string, number int32) error {
	return t.exec(ctx, `UPDATE attempts SET contact_time = $3 WHERE build_id = $1 AND attempt = $2 AND NOT ended`,
		buildID, number, sqldb.Micros(t.now))
}

// liveAttempts are those of which more is to come.
func (s *store) liveAttempts(ctx context.Context) ([]*attempt, error) {
	all, err := collect(ctx, s.db.Read(), scanAttempt, `SELECT `+attemptColumns+` FROM attempts WHERE NOT ended`)
	return all, sqldb.Kind(err)
}

func (t *tx) addToken(ctx context.Context, hash []byte, buildID string, number int32) error {
	return t.exec(ctx, `INSERT INTO tokens (hash, build_id, attempt) VALUES ($1, $2, $3)`, hash, buildID, number)
}

// attemptByToken is fault.Unauthenticated where the token is nobody's.
func (s *store) attemptByToken(ctx context.Context, hash []byte) (buildID string, number int32, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT build_id, attempt FROM tokens WHERE hash = $1`, hash).Scan(&buildID, &number)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, fault.New(fault.Unauthenticated, "the runner token is not one of an attempt of ours")
	}
	return buildID, number, sqldb.Kind(err)
}

// stop is a container to be removed.
type stop struct {
	buildID string
	attempt int32
	tries   int
}

func scanStop(row scanner) (stop, error) {
	var s stop
	err := row.Scan(&s.buildID, &s.attempt, &s.tries)
	return s, err
}

// stopSoon has the engine asked to remove an attempt's container.
func (t *tx) stopSoon(ctx context.Context, buildID string, number int32) error {
	t.news.stops = true
	return t.exec(ctx, `UPDATE attempts SET stop_time = $3, stop_tries = 0 WHERE build_id = $1 AND attempt = $2`,
		buildID, number, sqldb.Micros(t.now))
}

func (s *store) claimStops(ctx context.Context, limit int) ([]stop, error) {
	var claimed []stop
	_, err := s.write(ctx, func(ctx context.Context, t *tx) (err error) {
		claimed, err = collect(ctx, t, scanStop, `SELECT build_id, attempt, stop_tries FROM attempts
			WHERE stop_time <= $1 AND stop_time < 9223372036854775807 ORDER BY stop_time LIMIT $2`+t.skipLocked, sqldb.Micros(t.now), limit)
		for _, c := range claimed {
			err = errors.Join(err, t.stopAgain(ctx, c, t.now.Add(due.Lease)))
		}
		return err
	})
	return claimed, err
}

// renewStop keeps a claimed stop while the engine takes its time.
func (s *store) renewStop(ctx context.Context, c stop) error {
	_, err := s.write(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `UPDATE attempts SET stop_time = $3 WHERE build_id = $1 AND attempt = $2 AND stop_time < $4`,
			c.buildID, c.attempt, sqldb.Micros(t.now.Add(due.Lease)), int64(never))
	})
	return err
}

// stopAgain says when the engine is asked again; the zero time: never.
func (t *tx) stopAgain(ctx context.Context, c stop, again time.Time) error {
	return t.exec(ctx, `UPDATE attempts SET stop_time = $3, stop_tries = $4 WHERE build_id = $1 AND attempt = $2`,
		c.buildID, c.attempt, dueMicros(again), c.tries+1)
}

func scanStep(row scanner) (*schedulerv1.Step, error) {
	var raw []byte
	if err := row.Scan(&raw); err != nil {
		return nil, err
	}
	step := &schedulerv1.Step{}
	return step, proto.Unmarshal(raw, step)
}

// readSteps are the steps that a runner has told of, in order.
func readSteps(ctx context.Context, q querier, buildID string, number int32) ([]*schedulerv1.Step, error) {
	return collect(ctx, q, scanStep, `SELECT step FROM steps WHERE build_id = $1 AND attempt = $2 ORDER BY number`, buildID, number)
}

func (t *tx) saveStep(ctx context.Context, a *attempt, step *schedulerv1.Step) error {
	raw, err := proto.Marshal(step)
	if err != nil {
		return err
	}
	return t.exec(ctx, `INSERT INTO steps (build_id, attempt, number, step) VALUES ($1, $2, $3, $4)
		ON CONFLICT (build_id, attempt, number) DO UPDATE SET step = excluded.step`,
		a.buildID, a.number, step.GetNumber(), raw)
}

// knownAttempt splits the name of an attempt.
func knownAttempt(name string) (buildID string, number int32, ok bool) {
	buildID, digits, ok := strings.Cut(name, "-")
	n, err := strconv.ParseInt(digits, 10, 32)
	return buildID, int32(n), ok && err == nil
}
