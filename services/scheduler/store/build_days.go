package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// BuildDay is what became of the builds that ended on one day.
type BuildDay struct {
	Counts map[schedulerv1.Build_State]int32
	// Median is how long those that passed took; 0 where none did.
	Median time.Duration
}

// BuildDays are so many days of a repository, from the first on. Its builds are counted,
// and their median found, within an index that has them by day, state and duration.
func (s *Store) BuildDays(ctx context.Context, repository string, actions []schedulerv1.Build_Action, first time.Time, count int) ([]BuildDay, error) {
	from := sqldb.Micros(first) / perDay
	days := make([]BuildDay, count)
	where := `repository = $1 AND part_of = '' AND end_day > 0`
	if len(actions) > 0 {
		where += " AND " + in("action", actions)
	}
	type counted struct {
		day   int64
		state schedulerv1.Build_State
		count int32
	}
	found, err := sqldb.Collect(ctx, s.DB.Read(), func(row sqldb.Row) (c counted, err error) { return c, row.Scan(&c.day, &c.state, &c.count) },
		`SELECT end_day, state, count(*) FROM builds WHERE `+where+` AND end_day >= $2 AND end_day < $3 GROUP BY end_day, state`,
		strings.ToLower(repository), from, from+int64(count))
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	var medians []string
	for _, c := range found {
		day := &days[c.day-from]
		if day.Counts == nil {
			day.Counts = map[schedulerv1.Build_State]int32{}
		}
		day.Counts[c.state] = c.count
		if c.state == schedulerv1.Build_STATE_PASSED {
			medians = append(medians, fmt.Sprintf(`SELECT end_day, duration FROM (SELECT end_day, duration FROM builds
				WHERE %s AND end_day = %d AND state = %d ORDER BY duration LIMIT 1 OFFSET %d) of_%d`, where, c.day, c.state, (c.count-1)/2, len(medians)))
		}
	}
	if len(medians) == 0 {
		return days, nil
	}
	type median struct{ day, took int64 }
	middle, err := sqldb.Collect(ctx, s.DB.Read(), func(row sqldb.Row) (m median, err error) { return m, row.Scan(&m.day, &m.took) },
		strings.Join(medians, " UNION ALL "), strings.ToLower(repository))
	for _, m := range middle {
		days[m.day-from].Median = time.Duration(m.took) * time.Microsecond
	}
	return days, sqldb.Kind(err)
}
