package gateway

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// forward is a row of forwards: one delivery's way to one receiver.
type forward struct {
	delivery int64
	receiver string
	state    int64
	due      time.Time
	attempts int
	decision *eventv1.Decision
	err      string
	decided  time.Time
	reopened time.Time // when somebody had it decided again; zero: nobody did
	since    time.Time // from when tries are counted
}

// claim leases a receiver's due forwards until the given moment, those that are
// due longest first. It counts the attempt that is about to be made.
func (s *store) claim(ctx context.Context, receiver string, limit int, now, until time.Time) ([]forward, error) {
	var claimed []forward
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		query := `UPDATE forwards SET due = $1, attempts = attempts + 1
			WHERE receiver = $2 AND delivery IN (
				SELECT delivery FROM forwards WHERE receiver = $2 AND state = 1 AND due <= $3
				ORDER BY due LIMIT $4` + s.db.Dialect.SkipLocked() + `)
			RETURNING delivery, attempts, reopened`
		scan := func(row sqldb.Row) (forward, error) {
			f := forward{receiver: receiver, state: pending, due: until}
			var reopened int64
			err := row.Scan(&f.delivery, &f.attempts, &reopened)
			f.reopened = sqldb.Time(reopened)
			return f, err
		}
		var err error
		claimed, err = sqldb.Collect(ctx, s.db.Compiled(tx), scan, query, sqldb.Micros(until), receiver, sqldb.Micros(now), limit)
		return err
	})
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("claim forwards to %s: %w", receiver, err))
	}
	slices.SortFunc(claimed, func(a, b forward) int { return cmp.Compare(a.delivery, b.delivery) })
	return claimed, nil
}

// renew has the lease of a claimed forward last until the given moment.
func (s *store) renew(ctx context.Context, f forward, until time.Time) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE forwards SET due = $1 WHERE delivery = $2 AND receiver = $3 AND state = 1",
			sqldb.Micros(until), f.delivery, f.receiver)
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("renew delivery %d to %s: %w", f.delivery, f.receiver, err))
	}
	return nil
}

// settlement is how a try ended and, where the payload was read, what a list
// shows of it.
type settlement struct {
	forward
	summary
}

// settle writes settlements down, all or none.
func (s *store) settle(ctx context.Context, all []settlement) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, one := range all {
			if err := settleOne(ctx, s.db.Compiled(tx), one); err != nil {
				return fmt.Errorf("settle delivery %d to %s: %w", one.delivery, one.receiver, err)
			}
		}
		return nil
	})
	return sqldb.Kind(err)
}

func settleOne(ctx context.Context, tx *sqldb.Tx, s settlement) error {
	var decision []byte
	if s.decision != nil {
		var err error
		if decision, err = proto.Marshal(s.decision); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx,
		`UPDATE forwards SET state = $1, due = $2, attempts = $3, decision = $4, error = $5, decided = $6
		 WHERE delivery = $7 AND receiver = $8 AND state = 1`, s.state, sqldb.Micros(s.due), s.attempts, decision, storable(s.err),
		sqldb.Micros(s.decided), s.delivery, s.receiver)
	if err == nil && s.summary != (summary{}) {
		_, err = tx.ExecContext(ctx,
			`UPDATE deliveries SET action = $1, repository = $2, installation_id = $3, pull = $4, pull_request = $5, sha = $6
			 WHERE id = $7 AND action = '' AND repository = '' AND installation_id = 0`,
			storable(s.action), storable(s.repository), s.installationID, s.pull, s.pullRequest, storable(s.sha), s.delivery)
	}
	return err
}

// storable is text that every database takes: PostgreSQL refuses NUL, and
// nothing that strangers wrote needs more than a line.
func storable(text string) string {
	const most = 500
	text = strings.ReplaceAll(text, "\x00", "")
	if len(text) > most {
		text = text[:most]
	}
	return strings.ToValidUTF8(text, "")
}

// freeLeases makes all that is pending due, which also saves those who wait for a
// receiver the rest of their pause.
func (s *store) freeLeases(ctx context.Context, now time.Time) error {
	return s.db.FreeLeases(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE forwards SET due = $1 WHERE state = 1 AND due > $1", sqldb.Micros(now))
		return err
	})
}

// forwards returns the forwards of each of the deliveries.
func (s *store) forwards(ctx context.Context, deliveries ...int64) (map[int64][]forward, error) {
	found := map[int64][]forward{}
	if len(deliveries) == 0 {
		return found, nil
	}
	args := make([]any, len(deliveries))
	for i, id := range deliveries {
		args[i] = id
	}
	all, err := sqldb.Collect(ctx, s.db.Read(), scanForward,
		`SELECT delivery, receiver, state, due, attempts, decision, error, decided FROM forwards
		 WHERE delivery IN (`+sqldb.Marks(1, len(args))+`) ORDER BY delivery, receiver`, args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("read forwards: %w", err))
	}
	for _, f := range all {
		found[f.delivery] = append(found[f.delivery], f)
	}
	return found, nil
}

func scanForward(row sqldb.Row) (forward, error) {
	var (
		f            forward
		due, decided int64
		decision     []byte
	)
	err := row.Scan(&f.delivery, &f.receiver, &f.state, &due, &f.attempts, &decision, &f.err, &decided)
	if err != nil {
		return forward{}, err
	}
	f.due, f.decided = sqldb.Time(due), sqldb.Time(decided)
	if decision != nil {
		f.decision = &eventv1.Decision{}
		if err := proto.Unmarshal(decision, f.decision); err != nil {
			return forward{}, fmt.Errorf("decision on delivery %d: %w", f.delivery, err)
		}
	}
	return f, nil
}

// reopen makes every forward of a delivery pending, as if it had just come.
func (s *store) reopen(ctx context.Context, d delivery, now time.Time, also func(context.Context, *sql.Tx) error) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var there bool
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM payloads WHERE delivery = $1)", d.id).Scan(&there)
		if err == nil && !there {
			return fault.Newf(fault.Conflict, "delivery %s is too old: its payload was pruned; GitHub can send it again, from the App's settings page under 'Advanced'", d.guid)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			"UPDATE forwards SET state = 1, due = $1, attempts = 0, decision = NULL, error = '', decided = 0, reopened = $1 WHERE delivery = $2",
			sqldb.Micros(now), d.id)
		for _, receiver := range s.receiversOf(d.guid, d.event) { // some may be new
			if err == nil && receiver != self {
				_, err = tx.ExecContext(ctx, "INSERT INTO forwards (delivery, receiver, due, reopened) VALUES ($1, $2, $3, $3) ON CONFLICT (delivery, receiver) DO NOTHING",
					d.id, receiver, sqldb.Micros(now))
			}
		}
		if err != nil {
			return err
		}
		return also(ctx, tx)
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("redeliver %s: %w", d.guid, err))
	}
	return nil
}
