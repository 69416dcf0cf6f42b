package store

import (
	"context"
	"database/sql"
	"errors"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// RecordSuite remembers a check suite as it is in the event, and reports whether it
// was known so, or later, for as long as there are builds of its commit.
func (t *Tx) RecordSuite(ctx context.Context, event *eventv1.Event) (bool, error) {
	suite := event.GetCheckSuite()
	var id int64
	err := t.QueryRowContext(ctx, `INSERT INTO check_suites (repository_id, suite_id, sha, update_time) VALUES ($1, $2, $3, $4)
		ON CONFLICT (repository_id, suite_id) DO UPDATE SET update_time = excluded.update_time
		WHERE check_suites.update_time < excluded.update_time RETURNING suite_id`,
		event.GetRepository().GetId(), suite.GetCheckSuiteId(), suite.GetHeadSha(), sqldb.Micros(suite.GetUpdateTime().AsTime())).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, err
}
