package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// AttemptKey names an attempt.
type AttemptKey struct {
	BuildID string
	Number  int32
}

// MarshalJSON writes what recordHeartbeats reads.
func (k AttemptKey) MarshalJSON() ([]byte, error) { return json.Marshal([]any{k.BuildID, k.Number}) }

// Heard is an attempt whose heartbeat was stored.
type Heard struct {
	AttemptKey
	Cancelled bool // its build is asked to stop
}

func scanHeard(row sqldb.Row) (Heard, error) {
	var h Heard
	err := row.Scan(&h.BuildID, &h.Number, &h.Cancelled)
	return h, err
}

// The statement that stores heartbeats, for each database. What another
// transaction is changing just now is passed over: to wait for one of many would
// keep the others waiting.
const (
	recordHeartbeatsSQLite = `UPDATE attempts SET contact_time = $1
		WHERE NOT ended AND (build_id, attempt) IN (SELECT value ->> 0, value ->> 1 FROM json_each($2))
		RETURNING build_id, attempt, (SELECT cancel_time > 0 FROM builds WHERE id = attempts.build_id)`
	recordHeartbeatsPostgres = `WITH heard AS (
			SELECT build_id, attempt FROM attempts
			WHERE NOT ended AND (build_id, attempt) IN (SELECT one ->> 0, (one ->> 1)::bigint FROM json_array_elements($2::text::json) one)
			FOR UPDATE OF attempts SKIP LOCKED
		)
		UPDATE attempts SET contact_time = $1 FROM heard WHERE attempts.build_id = heard.build_id AND attempts.attempt = heard.attempt
		RETURNING attempts.build_id, attempts.attempt, COALESCE((SELECT cancel_time > 0 FROM builds WHERE id = attempts.build_id), FALSE)`
)

// RecordHeartbeats stores in one statement that the runners of attempts were heard
// now, and returns those of which it did. Of the rest some have ended; others were
// being changed, and are to be recorded later.
func (s *Store) RecordHeartbeats(ctx context.Context, of []AttemptKey) (recorded []Heard, err error) {
	names, err := json.Marshal(of)
	if err != nil {
		return nil, fmt.Errorf("heartbeats: %w", err)
	}
	statement := recordHeartbeatsSQLite
	if s.DB.Dialect == sqldb.Postgres {
		statement = recordHeartbeatsPostgres
	}
	err = s.Write(ctx, func(ctx context.Context, t *Tx) error {
		recorded, err = sqldb.Collect(ctx, t, scanHeard, statement, sqldb.Micros(t.Now), string(names))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("record heartbeats: %w", err)
	}
	return recorded, nil
}
