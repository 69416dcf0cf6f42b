package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// RecordForkHead remembers a fork's commit, and who stands for it, "" being nobody; with
// again that counts too where the commit is known already. It returns who does.
func (t *Tx) RecordForkHead(ctx context.Context, i trigger.Intent, voucher string, again bool) (by string, err error) {
	key := []any{i.Event.GetRepository().GetId(), i.Pull.GetNumber(), i.Sha}
	err = t.Exec(ctx, `INSERT INTO fork_heads (repository_id, pull_request, sha, approved_by, heard_time) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT DO NOTHING`, append(key, voucher, sqldb.Micros(heardOf(i, t.Now)))...)
	if err == nil && again {
		err = t.Exec(ctx, `UPDATE fork_heads SET approved_by = $4
			WHERE repository_id = $1 AND pull_request = $2 AND sha = $3 AND approved_by = ''`, append(key, voucher)...)
	}
	if err != nil {
		return "", err
	}
	err = t.QueryRowContext(ctx, `SELECT approved_by FROM fork_heads
		WHERE repository_id = $1 AND pull_request = $2 AND sha = $3`, key...).Scan(&by)
	return by, err
}

// heardOf is when the head of an intent was heard of. Only a pull request's own
// event holds the head: for any other GitHub was asked for it, after its receipt.
func heardOf(i trigger.Intent, now time.Time) time.Time {
	if received := i.Event.GetReceiveTime(); i.Event.GetPullRequest() != nil && received != nil && received.AsTime().Before(now) {
		return received.AsTime()
	}
	return now
}

// ForkHeadHeard is when a fork's commit was first heard of; known is false where
// it was not.
func ForkHeadHeard(ctx context.Context, q sqldb.Querier, i trigger.Intent) (at time.Time, known bool, err error) {
	var heard int64
	err = q.QueryRowContext(ctx, `SELECT heard_time FROM fork_heads WHERE repository_id = $1 AND pull_request = $2 AND sha = $3`,
		i.Event.GetRepository().GetId(), i.Pull.GetNumber(), i.Sha).Scan(&heard)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, false, nil
	}
	return sqldb.Time(heard), err == nil, sqldb.Kind(err)
}
