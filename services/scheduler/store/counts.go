package store

import (
	"context"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// stateCount is how many builds are in a state.
type stateCount struct {
	state schedulerv1.Build_State
	count int64
}

// CountUnfinished counts the builds that have not ended, by state; of builds that
// have jobs, their jobs.
func (s *Store) CountUnfinished(ctx context.Context) (map[schedulerv1.Build_State]int64, error) {
	scan := func(row sqldb.Row) (stateCount, error) {
		var c stateCount
		err := row.Scan(&c.state, &c.count)
		return c, err
	}
	found, err := sqldb.Collect(ctx, s.DB.Read(), scan, `SELECT state, count(*) FROM builds WHERE state < $1 AND jobs = 0 GROUP BY state`, int32(firstEnded))
	counted := map[schedulerv1.Build_State]int64{}
	for _, c := range found {
		counted[c.state] = c.count
	}
	return counted, sqldb.Kind(err)
}

// OldestQueued is since when the oldest build of the queue is due to be started;
// the zero time where none is.
func (s *Store) OldestQueued(ctx context.Context) (time.Time, error) {
	var due int64
	err := s.DB.Read().QueryRowContext(ctx, `SELECT COALESCE(min(due_time), 0) FROM builds WHERE state = $1 AND due_time <= $2`,
		int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(s.Now())).Scan(&due)
	return sqldb.Time(due), sqldb.Kind(err)
}

// CountStops counts the attempts whose containers are still to be removed, and says
// since when the oldest of them is; the zero time where there is none.
func (s *Store) CountStops(ctx context.Context) (count int64, oldest time.Time, err error) {
	var since int64
	err = s.DB.Read().QueryRowContext(ctx, `SELECT count(*), COALESCE(min(CASE stop_asked_time WHEN 0 THEN stop_time ELSE stop_asked_time END), 0)
		FROM attempts WHERE stop_time < 9223372036854775807`).Scan(&count, &since)
	return count, sqldb.Time(since), sqldb.Kind(err)
}
