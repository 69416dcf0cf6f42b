package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Notice is an event on its way to an address.
type Notice struct {
	id      int64
	Address string // by its name
	BuildID string
	EventID string
	Event   []byte
	Created time.Time
	Tries   int
}

// NoticeAddress is how an address does.
type NoticeAddress struct {
	Name                            string
	Sent, Refused, Dropped, Waiting int64
	LastSent, LastFailed            time.Time
	Error                           string
}

// Notices are what others are to be told, in a change.
type Notices struct{ *Tx }

// Add has an address told of an event.
func (t Notices) Add(ctx context.Context, n Notice) error {
	t.Wake(NoticeQueue)
	return t.Exec(ctx, `INSERT INTO notices (address, build_id, event_id, event, create_time, due_time) VALUES ($1, $2, $3, $4, $5, $5)`,
		n.Address, n.BuildID, n.EventID, n.Event, sqldb.Micros(t.Now))
}

// Board is where notices are read by those who tell of them.
type Board struct{ *Store }

// Claim leases what an address is to be told now: of each build the oldest.
func (s Board) Claim(ctx context.Context, address string, limit int) ([]Notice, error) {
	var claimed []Notice
	var some bool
	err := s.DB.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM notices WHERE address = $1 AND due_time <= $2)`, address, sqldb.Micros(s.Now())).Scan(&some)
	if err != nil || !some { // mostly, and no change is made for that
		return nil, sqldb.Kind(err)
	}
	err = s.Write(ctx, func(ctx context.Context, t *Tx) error {
		var rest int64
		err := t.QueryRowContext(ctx, `SELECT due_time FROM notice_addresses WHERE name = $1`, address).Scan(&rest)
		if err != nil && !errors.Is(err, sql.ErrNoRows) || rest > sqldb.Micros(t.Now) {
			return err
		}
		scan := func(row sqldb.Row) (Notice, error) {
			n := Notice{Address: address}
			var created int64
			err := row.Scan(&n.id, &n.BuildID, &n.EventID, &n.Event, &created, &n.Tries)
			n.Created = sqldb.Time(created)
			return n, err
		}
		claimed, err = sqldb.Collect(ctx, t, scan, `SELECT id, build_id, event_id, event, create_time, tries FROM notices n
			WHERE address = $1 AND due_time <= $2
				AND NOT EXISTS (SELECT 1 FROM notices e WHERE e.address = n.address AND e.build_id = n.build_id AND e.id < n.id)
			ORDER BY id LIMIT $3`+t.SkipLocked, address, sqldb.Micros(t.Now), limit)
		for _, n := range claimed {
			err = errors.Join(err, t.Exec(ctx, `UPDATE notices SET due_time = $2 WHERE id = $1`, n.id, sqldb.Micros(t.Now.Add(due.Lease))))
		}
		return err
	})
	return claimed, err
}

// ClaimUnder is Claim for all addresses whose names begin so.
func (s Board) ClaimUnder(ctx context.Context, begin string, limit int) ([]Notice, error) {
	names, err := sqldb.Collect(ctx, s.DB.Read(), scanID, `SELECT DISTINCT address FROM notices n WHERE address >= $1 AND address < $2 AND due_time <= $3
		AND NOT EXISTS (SELECT 1 FROM notice_addresses a WHERE a.name = n.address AND a.due_time > $3) LIMIT $4`, begin, begin+"\x7f", sqldb.Micros(s.Now()), limit)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	var claimed []Notice
	for _, name := range names {
		some, err := s.Claim(ctx, name, limit-len(claimed))
		claimed = append(claimed, some...)
		if err != nil || len(claimed) == limit {
			return claimed, err
		}
	}
	return claimed, nil
}

// Renew has the lease of a claimed notice last on.
func (s Board) Renew(ctx context.Context, n Notice) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		return t.Exec(ctx, `UPDATE notices SET due_time = $2 WHERE id = $1`, n.id, sqldb.Micros(t.Now.Add(due.Lease)))
	})
}

// Told is done with a notice: it was taken, or refused for the reason given.
func (t Notices) Told(ctx context.Context, n Notice, refused string) error {
	t.Wake(NoticeQueue) // the next of its build
	now := sqldb.Micros(t.Now)
	if err := errors.Join(t.address(ctx, n.Address), t.Exec(ctx, `DELETE FROM notices WHERE id = $1`, n.id)); err != nil {
		return err
	}
	if refused != "" {
		return t.Exec(ctx, `UPDATE notice_addresses SET due_time = 0, tries = 0, refused = refused + 1, error = $2, error_time = $3 WHERE name = $1`, n.Address, refused, now)
	}
	return t.Exec(ctx, `UPDATE notice_addresses SET due_time = 0, tries = 0, sent = sent + 1, send_time = $2 WHERE name = $1`, n.Address, now)
}

// Failed has a notice told again after a pause. The address is left alone meanwhile, by a
// pause that grows with its own failures.
func (t Notices) Failed(ctx context.Context, n Notice, reason string, pause func(tries int) time.Duration) error {
	if err := t.address(ctx, n.Address); err != nil {
		return err
	}
	var tries int
	if err := t.QueryRowContext(ctx, `SELECT tries FROM notice_addresses WHERE name = $1`+t.Locked, n.Address).Scan(&tries); err != nil {
		return err
	}
	now := sqldb.Micros(t.Now)
	return errors.Join(
		t.Exec(ctx, `UPDATE notices SET due_time = $2, tries = tries + 1 WHERE id = $1`, n.id, sqldb.Micros(t.Now.Add(pause(n.Tries+1)))),
		t.Exec(ctx, `UPDATE notice_addresses SET tries = tries + 1, due_time = $2 WHERE name = $1 AND due_time <= $3`, n.Address, sqldb.Micros(t.Now.Add(pause(tries+1))), now),
		t.Exec(ctx, `UPDATE notice_addresses SET error = $2, error_time = $3 WHERE name = $1`, n.Address, reason, now),
	)
}

func (t Notices) address(ctx context.Context, name string) error {
	return t.Exec(ctx, `INSERT INTO notice_addresses (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
}

// Drop removes notices that are older than the given moment and, of each address, those
// beyond the newest that are kept. It says how many, by address.
func (t Notices) Drop(ctx context.Context, before time.Time, most int) (map[string]int64, error) {
	names, err := sqldb.Collect(ctx, t.Tx, scanID, `SELECT DISTINCT address FROM notices`)
	if err != nil {
		return nil, err
	}
	dropped := map[string]int64{}
	for _, name := range names {
		gone, err := t.ExecContext(ctx, `DELETE FROM notices WHERE address = $1
			AND (create_time < $2 OR id <= COALESCE((SELECT id FROM notices WHERE address = $1 ORDER BY id DESC LIMIT 1 OFFSET $3), 0))`,
			name, sqldb.Micros(before), most)
		if err != nil {
			return nil, err
		}
		n, err := gone.RowsAffected()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		dropped[name] = n
		if err := errors.Join(t.address(ctx, name), t.Exec(ctx, `UPDATE notice_addresses SET dropped = dropped + $2 WHERE name = $1`, name, n)); err != nil {
			return nil, err
		}
	}
	return dropped, nil
}

// Addresses are how addresses do, by name.
func (s Board) Addresses(ctx context.Context) (map[string]NoticeAddress, error) {
	all := map[string]NoticeAddress{}
	scan := func(row sqldb.Row) (name string, err error) {
		var a NoticeAddress
		var sent, failed int64
		err = row.Scan(&a.Name, &a.Sent, &a.Refused, &a.Dropped, &sent, &a.Error, &failed)
		a.LastSent, a.LastFailed = sqldb.Time(sent), sqldb.Time(failed)
		all[a.Name] = a
		return a.Name, err
	}
	_, err := sqldb.Collect(ctx, s.DB.Read(), scan, `SELECT name, sent, refused, dropped, send_time, error, error_time FROM notice_addresses`)
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", sqldb.Kind(err))
	}
	waiting := func(row sqldb.Row) (name string, err error) {
		var n int64
		err = row.Scan(&name, &n)
		a := all[name]
		a.Name, a.Waiting = name, n
		all[name] = a
		return name, err
	}
	if _, err = sqldb.Collect(ctx, s.DB.Read(), waiting, `SELECT address, COUNT(*) FROM notices GROUP BY address`); err != nil {
		return nil, fmt.Errorf("notices: %w", sqldb.Kind(err))
	}
	return all, nil
}

// Before is how the build before this one ended, of those for the same end on the same
// branch; none is 0. What was cancelled, and pull requests, are left out.
func (t Notices) Before(ctx context.Context, b *Build) (newest schedulerv1.Build_State, err error) {
	var last int64
	for _, state := range []schedulerv1.Build_State{
		schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_TIMED_OUT,
	} {
		var number int64 // one state after the other, as the index has them
		err := t.QueryRowContext(ctx, `SELECT number FROM builds WHERE repository = $1 AND branch = $2 AND state = $3 AND number < $4 AND action = $5 AND part_of = ''
				AND environment = $6 AND pull_request = 0 ORDER BY number DESC LIMIT 1`,
			b.RepositoryKey(), b.branch(), int32(state), b.Number, int32(b.GetAction()), b.GetEnvironment()).Scan(&number)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return 0, err
		}
		if number > last {
			last, newest = number, state
		}
	}
	return newest, nil
}

// OnBranch is the branch that a build is of; "" for none.
func (b *Build) OnBranch() string { return b.branch() }

// NotifyOf is whom the default branch's file of a repository has told, as it was read last.
func (t Notices) NotifyOf(ctx context.Context, repositoryID int64) ([]*configv1.Notify, string, error) {
	f, err := scheduleFile(ctx, t, repositoryID, "")
	if f == nil || err != nil {
		return nil, "", err
	}
	return f.Notify, f.Repository.GetDefaultBranch(), nil
}
