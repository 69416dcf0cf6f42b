package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
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

// forsake keeps for a person what was due before the given moment at a receiver that is
// none of those served.
func (s *store) forsake(ctx context.Context, served []string, now, before time.Time) error {
	decision, err := proto.Marshal(&eventv1.Decision{
		Reason: eventv1.Reason_REASON_GAVE_UP, Text: "gave up: no receiver of this name is set any more",
	})
	if err != nil {
		return fmt.Errorf("forsake: %w", err)
	}
	args := []any{sqldb.Micros(now), decision, sqldb.Micros(before)}
	for _, receiver := range served {
		args = append(args, receiver)
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		//nolint:gosec // marks are all that is put in
		_, err := tx.ExecContext(ctx, "UPDATE forwards SET state = 3, decided = $1, decision = $2 WHERE state = 1 AND due < $3 AND receiver NOT IN ("+
			sqldb.Marks(4, len(served))+")", args...)
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("forsake: %w", err))
	}
	return nil
}
