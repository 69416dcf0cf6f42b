package store

import (
	"context"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// GatePlace is the place of a build of an image in the line before a BuildKit.
type GatePlace struct {
	Number   int64 // the order in which they came
	BuildKit string
	Build    string // what BuildKit calls it
	Tier     string
	Inside   bool // its commands may run
	Lease    time.Time
}

const gatePlaceColumns = `number, buildkit, build, tier, inside, lease_time`

func scanGatePlace(row sqldb.Row) (p GatePlace, err error) {
	var lease int64
	err = row.Scan(&p.Number, &p.BuildKit, &p.Build, &p.Tier, &p.Inside, &lease)
	p.Lease = sqldb.Time(lease)
	return p, err
}

// GateTopic is that somebody has left the line before a BuildKit.
func GateTopic(buildkit string) string { return "image gate " + buildkit }

// JoinGate gives a build the last place in the line, and its number.
func JoinGate(ctx context.Context, t *Tx, p GatePlace) (number int64, err error) {
	// The row stays locked until the commit: who sees a place sees all that come before it.
	if err := t.QueryRowContext(ctx, `UPDATE image_gate_last SET number = number + 1 WHERE id = 1 RETURNING number`).Scan(&number); err != nil {
		return 0, err
	}
	return number, t.Exec(ctx, `INSERT INTO image_gate (`+gatePlaceColumns+`) VALUES ($1, $2, $3, $4, FALSE, $5)`,
		number, p.BuildKit, p.Build, p.Tier, sqldb.Micros(p.Lease))
}

// EnterGate lets a build in where nobody of another tier stands before it, and reports
// whether it did. It is enough to look at those before: who came later is inside only if
// all before them are of the same tier.
func EnterGate(ctx context.Context, t *Tx, number int64, lease time.Time) (bool, error) {
	return changes(ctx, t, `UPDATE image_gate SET inside = TRUE, lease_time = $2 WHERE number = $1 AND NOT EXISTS (
		SELECT 1 FROM image_gate earlier WHERE earlier.buildkit = image_gate.buildkit AND earlier.number < image_gate.number AND earlier.tier <> image_gate.tier)`,
		number, sqldb.Micros(lease))
}

// GateBefore are those of another tier before a place, the first in line first. false: the
// place itself is gone.
func GateBefore(ctx context.Context, s *Store, p GatePlace) (before []GatePlace, there bool, err error) {
	line, err := sqldb.Collect(ctx, s.DB.Read(), scanGatePlace, `SELECT `+gatePlaceColumns+` FROM image_gate
		WHERE buildkit = $1 AND (number = $2 OR number < $2 AND tier <> $3) ORDER BY number`, p.BuildKit, p.Number, p.Tier)
	if last := len(line) - 1; last >= 0 && line[last].Number == p.Number {
		return line[:last], true, sqldb.Kind(err)
	}
	return line, false, sqldb.Kind(err)
}

// RenewGate has a lease last until a time. false: the place is gone.
func RenewGate(ctx context.Context, t *Tx, number int64, lease time.Time) (bool, error) {
	return changes(ctx, t, `UPDATE image_gate SET lease_time = $2 WHERE number = $1`, number, sqldb.Micros(lease))
}

// LeaveGate gives up a place.
func LeaveGate(ctx context.Context, t *Tx, p GatePlace) error {
	t.Notify(GateTopic(p.BuildKit))
	return t.Exec(ctx, `DELETE FROM image_gate WHERE number = $1`, p.Number)
}

// LapseGate ends the lease of a place: who waits for it asks BuildKit what became of the
// build.
func LapseGate(ctx context.Context, t *Tx, p GatePlace) error {
	t.Notify(GateTopic(p.BuildKit))
	return t.Exec(ctx, `UPDATE image_gate SET lease_time = $2 WHERE number = $1`, p.Number, sqldb.Micros(t.Now))
}

// TakeGatePlace takes a place away whose lease is over, unless it was renewed since it was
// read.
func TakeGatePlace(ctx context.Context, t *Tx, p GatePlace) error {
	t.Notify(GateTopic(p.BuildKit))
	return t.Exec(ctx, `DELETE FROM image_gate WHERE number = $1 AND inside = $2 AND lease_time = $3`, p.Number, p.Inside, sqldb.Micros(p.Lease))
}

// RemoveGatePlaces forgets places whose lease was over before a time: nobody has come to
// their BuildKit since. It returns how many there were, at most so many.
func RemoveGatePlaces(ctx context.Context, t *Tx, before time.Time, limit int) (int, error) {
	removed, err := t.ExecContext(ctx, `DELETE FROM image_gate WHERE number IN (
		SELECT number FROM image_gate WHERE lease_time <= $1 ORDER BY number LIMIT $2)`, sqldb.Micros(before), limit)
	if err != nil {
		return 0, err
	}
	n, err := removed.RowsAffected()
	return int(n), err
}

// changes reports whether a statement has changed something.
func changes(ctx context.Context, t *Tx, query string, args ...any) (bool, error) {
	changed, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := changed.RowsAffected()
	return n > 0, err
}
