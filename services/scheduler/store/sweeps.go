package store

import (
	"context"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ClaimSweep reports whether it is this replica's turn to look after all attempts,
// which it is once in a while for one of them. Who claims it and dies costs one
// turn. A SQLite file has one process, whose turn it always is.
func (s *Store) ClaimSweep(ctx context.Context, every time.Duration) (mine bool, err error) {
	if s.DB.Dialect == sqldb.SQLite {
		return true, nil
	}
	err = s.Write(ctx, func(ctx context.Context, t *Tx) error {
		// A turn farther away than the next was set by a clock that is wrong.
		claimed, err := t.ExecContext(ctx, `UPDATE sweeps SET next_time = $1 WHERE id = 1 AND (next_time <= $2 OR next_time > $1)`,
			sqldb.Micros(t.Now.Add(every)), sqldb.Micros(t.Now))
		if err != nil {
			return err
		}
		n, err := claimed.RowsAffected()
		mine = n > 0
		return err
	})
	return mine, err
}
