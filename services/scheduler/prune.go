package scheduler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	pruneEvery = time.Hour
	// pruneBatch bounds a transaction, so that nobody waits for one.
	pruneBatch = 100
)

// pruneOften removes what is older than it is to be kept, at once and then now
// and again.
func (s *Service) pruneOften(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	var looked time.Time // for strays: blobs are many, and strays few
	for {
		err := s.prune(ctx)
		if now := s.Now(); now.Sub(looked) >= strayAfter {
			looked = now
			err = errors.Join(err, s.removeStrays(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "pruning broke off", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// prune removes logs and builds past their retention, and what was decided and
// known at the time. What an environment runs is kept, and so is what brought its
// newest commit, to which later ones are compared.
func (s *Service) prune(ctx context.Context) error {
	for _, kind := range []struct {
		name      string
		retention time.Duration // 0 keeps for good
		old       string        // names what goes, by a text; $1 is the latest moment, $2 how many
		remove    func(t *tx, ctx context.Context, id string) error
	}{
		{"logs", s.LogRetention, oldLogs, (*tx).removeLog},
		{"builds", s.BuildRetention, oldBuilds, (*tx).removeBuild},
		{"decisions", s.BuildRetention, `SELECT delivery_id FROM decisions WHERE create_time <= $1 LIMIT $2`, (*tx).removeDecision},
		{"answers", s.BuildRetention, `SELECT comment FROM answers WHERE create_time <= $1 AND due_time = 9223372036854775807 LIMIT $2`, (*tx).removeAnswer},
	} {
		if kind.retention == 0 {
			continue
		}
		before, removed := sqldb.Micros(s.Now().Add(-kind.retention)), 0
		for {
			ids, err := collect(ctx, s.store.db.Read(), scanID, kind.old, before, pruneBatch)
			if err != nil {
				return fmt.Errorf("%s to be removed: %w", kind.name, sqldb.Kind(err))
			}
			err = s.write(ctx, func(ctx context.Context, t *tx) error {
				for _, id := range ids {
					if err := kind.remove(t, ctx, id); err != nil {
						return fmt.Errorf("remove %s of %s: %w", kind.name, id, err)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if removed += len(ids); len(ids) < pruneBatch {
				break
			}
		}
		if removed > 0 {
			s.Log.InfoContext(ctx, "pruned", "what", kind.name, "count", removed, "older_than", kind.retention)
		}
	}
	return nil
}

// A due time of the greatest number is never.
const (
	oldLogs = `SELECT id FROM builds WHERE end_time > 0 AND end_time <= $1
		AND EXISTS (SELECT 1 FROM attempts WHERE build_id = id AND log_size > 0) LIMIT $2`
	oldBuilds = `SELECT id FROM builds WHERE end_time > 0 AND end_time <= $1
		AND NOT EXISTS (SELECT 1 FROM environments WHERE id IN (build_id, deployed_id, newest_id))
		AND NOT EXISTS (SELECT 1 FROM attempts WHERE build_id = id AND (NOT ended OR stop_time < 9223372036854775807))
		AND NOT EXISTS (SELECT 1 FROM targets WHERE targets.repository_id = builds.repository_id AND targets.sha = builds.sha
			AND build_id = id AND targets.due_time < 9223372036854775807)
		LIMIT $2`
)

func (t *tx) removeLog(ctx context.Context, buildID string) error {
	if err := t.forgetLogs(ctx, buildID); err != nil {
		return err
	}
	return t.exec(ctx, `UPDATE attempts SET log_size = 0 WHERE build_id = $1`, buildID)
}

func (t *tx) removeBuild(ctx context.Context, id string) error {
	var repositoryID int64
	var sha string
	err := t.QueryRowContext(ctx, `DELETE FROM builds WHERE id = $1 RETURNING repository_id, sha`, id).Scan(&repositoryID, &sha)
	if errors.Is(err, sql.ErrNoRows) { // another replica was faster
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.forgetLogs(ctx, id); err != nil {
		return err
	}
	for _, statement := range []string{
		`DELETE FROM steps WHERE build_id = $1`,
		`DELETE FROM tokens WHERE build_id = $1`, `DELETE FROM attempts WHERE build_id = $1`,
	} {
		if err := t.exec(ctx, statement, id); err != nil {
			return err
		}
	}
	for _, table := range []string{"targets", "check_suites"} {
		err := t.exec(ctx, `DELETE FROM `+table+` WHERE repository_id = $1 AND sha = $2
			AND NOT EXISTS (SELECT 1 FROM builds WHERE repository_id = $1 AND sha = $2)`, repositoryID, sha)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) removeDecision(ctx context.Context, deliveryID string) error {
	return t.exec(ctx, `DELETE FROM decisions WHERE delivery_id = $1`, deliveryID)
}

func (t *tx) removeAnswer(ctx context.Context, comment string) error {
	return t.exec(ctx, `DELETE FROM answers WHERE comment = $1`, comment)
}
