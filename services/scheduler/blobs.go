package scheduler

import (
	"context"
	"fmt"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/logs"
)

// BlobKeys are the keys of the blobs that a database names: what a copy of it needs.
func BlobKeys(ctx context.Context, db *sqldb.DB) (keys []string, err error) {
	for _, of := range []func(context.Context, sqldb.Querier) ([]string, error){logs.BlobKeys, content.BlobKeys} {
		some, err := of(ctx, db.Read())
		if err != nil {
			return nil, fmt.Errorf("blobs of the scheduler: %w", sqldb.Kind(err))
		}
		keys = append(keys, some...)
	}
	return keys, nil
}
