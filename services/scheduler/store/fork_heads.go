package store

import (
	"context"

	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// RecordForkHead remembers a fork's commit, and who stands for it, "" being nobody; with
// again that counts too where the commit is known already. It returns who does.
func (t *Tx) RecordForkHead(ctx context.Context, i trigger.Intent, voucher string, again bool) (by string, err error) {
	key := []any{i.Event.GetRepository().GetId(), i.Pull.GetNumber(), i.Sha}
	err = t.Exec(ctx, `INSERT INTO fork_heads (repository_id, pull_request, sha, approved_by) VALUES ($1, $2, $3, $4)
		ON CONFLICT DO NOTHING`, append(key, voucher)...)
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
