package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// prune removes up to limit rows, the oldest first, of the payloads or the
// deliveries received before the given moment of which nothing is pending. They
// are looked for outside the transaction, which stays short.
func (s *store) prune(ctx context.Context, table string, before time.Time, limit int) (int, error) {
	column := map[string]string{"payloads": "delivery", "deliveries": "id"}[table]
	ids, err := s.old(ctx, table, column, before, limit)
	if err != nil || len(ids) == 0 {
		return 0, sqldb.Kind(err)
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		//nolint:gosec // both names are literals
		_, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+column+" IN ("+sqldb.Marks(1, len(ids))+")", ids...)
		return err
	})
	if err != nil {
		return 0, sqldb.Kind(fmt.Errorf("prune %s: %w", table, err))
	}
	return len(ids), nil
}

func (s *store) old(ctx context.Context, table, column string, before time.Time, limit int) ([]any, error) {
	// Ids rise with time: the newest that is old bounds the search.
	var newest int64
	err := s.db.Read().QueryRowContext(ctx, "SELECT id FROM deliveries WHERE received < $1 ORDER BY received DESC LIMIT 1", sqldb.Micros(before)).Scan(&newest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("old deliveries: %w", err)
	}
	scan := func(row sqldb.Row) (any, error) {
		var id int64
		err := row.Scan(&id)
		return id, err
	}
	ids, err := sqldb.Collect(ctx, s.db.Read(), scan, "SELECT "+column+" FROM "+table+" WHERE "+column+" <= $1 AND NOT EXISTS "+
		"(SELECT 1 FROM forwards WHERE forwards.delivery = "+table+"."+column+" AND state = 1) ORDER BY "+column+" LIMIT $2", newest, limit)
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", table, err)
	}
	return ids, nil
}
