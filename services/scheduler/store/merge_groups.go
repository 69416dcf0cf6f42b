package store

import (
	"context"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// CountGroup adds to how often a group was asked for less how often it was given
// up, and returns that. The same group may come again, and events in any order.
func (t *Tx) CountGroup(ctx context.Context, i trigger.Intent, add int) (requests int, err error) {
	err = t.QueryRowContext(ctx, `INSERT INTO merge_groups (repository_id, ref, sha, requests, update_time) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (repository_id, ref, sha) DO UPDATE SET requests = merge_groups.requests + excluded.requests, update_time = excluded.update_time
		RETURNING requests`, i.Event.GetRepository().GetId(), i.Ref, i.Sha, add, sqldb.Micros(t.Now)).Scan(&requests)
	return requests, err
}
