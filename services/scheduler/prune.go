package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/tests"
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
		err := errors.Join(s.store.FillBuilds(ctx), s.prune(ctx))
		if now := s.deps.Now(); now.Sub(looked) >= logs.StrayAfter {
			looked = now
			err = errors.Join(err, s.logs.RemoveStrays(ctx), s.contents.RemoveStrays(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "pruning broke off", "error", err)
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
		remove    func(ctx context.Context, before time.Time, limit int) (int, error)
	}{
		{"logs", s.deps.Retention.Logs, s.removeEach(s.store.OldLogs, removeLog)},
		{"builds", s.deps.Retention.Builds, s.removeEach(s.store.OldBuilds, removeBuild)},
		{"decisions", s.deps.Retention.Builds, s.removeEach(s.store.OldDecisions, removeDecision)},
		{"answers", s.deps.Retention.Builds, s.removeEach(s.store.OldAnswers, removeAnswer)},
		{"tests", s.deps.Retention.Builds, s.removeSome(tests.Prune)},
		{"audit log", s.deps.Retention.Audit, s.removeSome(audit.Prune)},
		{"pull requests", s.deps.Retention.Builds, s.removeSome(store.RemovePullRequests)},
		{"merge groups", s.deps.Retention.Builds, s.removeSome(store.RemoveMergeGroups)},
		{"turns of images", s.deps.Retention.Builds, s.removeSome(store.RemoveGatePlaces)},
	} {
		if kind.retention == 0 {
			continue
		}
		before, removed := s.deps.Now().Add(-kind.retention), 0
		for more := true; more; {
			n, err := kind.remove(ctx, before, pruneBatch)
			if err != nil {
				return fmt.Errorf("remove old %s: %w", kind.name, err)
			}
			removed, more = removed+n, n == pruneBatch
		}
		if removed > 0 {
			s.deps.Log.InfoContext(ctx, "pruned", "what", kind.name, "count", removed, "older_than", kind.retention)
		}
	}
	return nil
}

// removeEach removes what is old one by one. It is looked for before the transaction,
// which stays short.
func (s *Service) removeEach(
	old func(ctx context.Context, before time.Time, limit int) ([]string, error),
	remove func(ctx context.Context, t *store.Tx, id string) error,
) func(context.Context, time.Time, int) (int, error) {
	return func(ctx context.Context, before time.Time, limit int) (int, error) {
		ids, err := old(ctx, before, limit)
		if err != nil || len(ids) == 0 {
			return 0, err
		}
		return len(ids), s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
			for _, id := range ids {
				if err := remove(ctx, t, id); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
			}
			return nil
		})
	}
}

// removeSome removes what is old as the store finds it.
func (s *Service) removeSome(
	remove func(ctx context.Context, t *store.Tx, before time.Time, limit int) (int, error),
) func(context.Context, time.Time, int) (int, error) {
	return func(ctx context.Context, before time.Time, limit int) (n int, err error) {
		err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
			n, err = remove(ctx, t, before, limit)
			return err
		})
		return n, err
	}
}

func removeLog(ctx context.Context, t *store.Tx, buildID string) error {
	if err := logs.ForgetLogs(ctx, t, buildID); err != nil {
		return err
	}
	return t.EmptyLogs(ctx, buildID)
}

func removeBuild(ctx context.Context, t *store.Tx, buildID string) error {
	jobs, err := store.JobIDs(ctx, t, buildID)
	if err != nil {
		return err
	}
	for _, id := range append(jobs, buildID) {
		if err := logs.ForgetLogs(ctx, t, id); err != nil {
			return err
		}
		if err := t.RemoveBuild(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func removeDecision(ctx context.Context, t *store.Tx, deliveryID string) error {
	return t.RemoveDecision(ctx, deliveryID)
}

func removeAnswer(ctx context.Context, t *store.Tx, comment string) error {
	return t.RemoveAnswer(ctx, comment)
}
