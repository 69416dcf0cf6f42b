package store

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Unfinished is what builds that have not ended are counted by.
type Unfinished struct {
	State  schedulerv1.Build_State
	Action schedulerv1.Build_Action
}

// CountUnfinished counts the builds that have not ended; of builds that have jobs, their
// jobs.
func (s *Store) CountUnfinished(ctx context.Context) (map[Unfinished]int64, error) {
	counted := map[Unfinished]int64{}
	scan := func(row sqldb.Row) (of Unfinished, err error) {
		var count int64
		err = row.Scan(&of.State, &of.Action, &count)
		counted[of] = count
		return of, err
	}
	_, err := sqldb.Collect(ctx, s.DB.Read(), scan,
		`SELECT state, action, count(*) FROM builds WHERE state < $1 AND jobs = 0 GROUP BY state, action`, int32(firstEnded))
	return counted, sqldb.Kind(err)
}

// Waits is how many builds wait for the same, and since when the oldest of them was made.
type Waits struct {
	Count  int64
	Oldest time.Time
}

// mostWaiting bounds how many unfinished builds are looked at, oldest first.
const mostWaiting = 10_000

// CountWaiting counts the builds that wait, by what for. Beyond ten thousand unfinished
// ones it counts no further.
func (s *Store) CountWaiting(ctx context.Context) (map[schedulerv1.Build_Reason]Waits, error) {
	counted := map[schedulerv1.Build_Reason]Waits{}
	scan := func(row sqldb.Row) (none struct{}, err error) {
		var text []byte
		if err := row.Scan(&text); err != nil {
			return none, err
		}
		var b schedulerv1.Build
		if err := proto.Unmarshal(text, &b); err != nil {
			return none, err
		}
		reason := WaitsFor(&b)
		if reason == schedulerv1.Build_REASON_UNSPECIFIED {
			return none, nil
		}
		of, made := counted[reason], b.GetCreateTime().AsTime()
		of.Count++
		if of.Oldest.IsZero() || made.Before(of.Oldest) {
			of.Oldest = made
		}
		counted[reason] = of
		return none, nil
	}
	_, err := sqldb.Collect(ctx, s.DB.Read(), scan,
		`SELECT build FROM builds WHERE state < $1 AND jobs = 0 ORDER BY number LIMIT $2`, int32(firstEnded), mostWaiting)
	return counted, sqldb.Kind(err)
}

// CountStops counts the attempts whose containers are still to be removed, and says
// since when the oldest of them is; the zero time where there is none.
func (s *Store) CountStops(ctx context.Context) (count int64, oldest time.Time, err error) {
	var since int64
	err = s.DB.Read().QueryRowContext(ctx, `SELECT count(*), COALESCE(min(CASE stop_asked_time WHEN 0 THEN stop_time ELSE stop_asked_time END), 0)
		FROM attempts WHERE stop_time < 9223372036854775807 AND kept_until <= $1`, sqldb.Micros(s.Now())).Scan(&count, &since)
	return count, sqldb.Time(since), sqldb.Kind(err)
}
