package store

import (
	"context"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Claim leases what is due in a queue: the rows that a query finds, to which the time and
// the limit are given. lease has a row be due when its lease ends.
func Claim[R any](ctx context.Context, s *Store, limit int, scan func(sqldb.Row) (R, error), query string,
	lease func(ctx context.Context, t *Tx, row R, until time.Time) error,
) ([]R, error) {
	var claimed []R
	err := s.Write(ctx, func(ctx context.Context, t *Tx) (err error) {
		claimed, err = sqldb.Collect(ctx, t, scan, query+t.SkipLocked, sqldb.Micros(t.Now), limit)
		for _, row := range claimed {
			err = errors.Join(err, lease(ctx, t, row, t.Now.Add(due.Lease)))
		}
		return err
	})
	return claimed, err
}
