package content

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	sweepEvery = 5 * time.Minute
	// sweepBatch bounds a transaction.
	sweepBatch = 100
	// FreeFor is how long a blob stays that nothing uses: whoever reads or writes it has
	// ended by then.
	FreeFor = time.Hour
)

// Run removes what is too old or too much until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "the sweep of caches and artifacts broke off", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep removes what is past its time, what a repository has too much of, and then
// blobs that nothing has used for a while.
func (s *Service) Sweep(ctx context.Context) error {
	if err := s.expire(ctx); err != nil {
		return fmt.Errorf("remove what is past its time: %w", err)
	}
	full, err := sqldb.Collect(ctx, s.store.DB.Read(), func(row sqldb.Row) (id int64, err error) {
		err = row.Scan(&id)
		return id, err
	}, `SELECT repository_id FROM packs WHERE kind = 1 AND free_time = 0 GROUP BY repository_id HAVING SUM(size) > $1`, s.limits.Cache)
	if err != nil {
		return sqldb.Kind(err)
	}
	for _, repository := range full {
		if err := s.evict(ctx, repository, ""); err != nil {
			return fmt.Errorf("evict caches: %w", err)
		}
	}
	return s.removePacks(ctx)
}

func (s *Service) expire(ctx context.Context) error {
	for {
		old, err := s.all(ctx, `expire_time < $1 ORDER BY expire_time LIMIT $2`, sqldb.Micros(s.store.Now()), sweepBatch)
		if err != nil || len(old) == 0 {
			return err
		}
		for _, one := range old {
			s.log.InfoContext(ctx, "content is past its time", "repository", one.repository, "name", one.name, "build", one.buildID)
		}
		if err := s.removeAll(ctx, old); err != nil {
			return err
		}
	}
}

func (s *Service) removeAll(ctx context.Context, all []*stored) error {
	ids := make([]string, 0, len(all))
	for _, one := range all {
		ids = append(ids, one.id)
	}
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return remove(ctx, t, ids...) })
}

// evict removes caches until the others fit: those of the least trusted first, so that
// nobody drives out what a higher tier has saved; of one tier the least recently
// used. spared is the one that was just saved, which goes last.
func (s *Service) evict(ctx context.Context, repositoryID int64, spared string) error {
	for {
		used, err := taken(ctx, s.store.DB.Read(), repositoryID, kindCache)
		if err != nil || used <= s.limits.Cache {
			return sqldb.Kind(err)
		}
		victim, err := s.one(ctx, `repository_id = $1 AND kind = 1 ORDER BY tier, CASE WHEN id = $2 THEN 1 ELSE 0 END, use_time LIMIT 1`, repositoryID, spared)
		if err != nil || victim == nil {
			return err
		}
		s.log.InfoContext(ctx, "cache evicted", "repository", victim.repository, "key", victim.name, "scope", victim.scope.name, "bytes", used, "limit", s.limits.Cache)
		if err := s.removeAll(ctx, []*stored{victim}); err != nil {
			return err
		}
	}
}

// removePacks removes blobs that nothing has used for a while. Each is marked first:
// from then on nobody begins to use it.
func (s *Service) removePacks(ctx context.Context) error {
	for {
		var dying []string
		err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
			dying, err = sqldb.Collect(ctx, t, scanText, `UPDATE packs SET dying = $1 WHERE id IN (
					SELECT id FROM packs WHERE free_time > 0 AND free_time < $2
					AND NOT EXISTS (SELECT 1 FROM pack_uses WHERE pack_id = packs.id) ORDER BY free_time LIMIT $3)
				AND free_time > 0 AND free_time < $2 RETURNING id`,
				true, sqldb.Micros(t.Now.Add(-FreeFor)), sweepBatch)
			return err
		})
		if err != nil || len(dying) == 0 {
			return err
		}
		for _, id := range dying {
			err = errors.Join(err, s.blobs.Remove(ctx, blobOf(id)))
		}
		if err != nil {
			return err
		}
		err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
			for _, id := range dying {
				if err := t.Exec(ctx, `DELETE FROM packs WHERE id = $1`, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// StrayAfter is the age of a blob that no row knows and nobody is still writing.
const StrayAfter = 24 * time.Hour

// RemoveStrays removes blobs that no row knows: a process that was killed leaves the
// part it had written.
func (s *Service) RemoveStrays(ctx context.Context) error {
	removed := 0
	for found, err := range s.blobs.List(ctx, folder) {
		if err != nil {
			return err
		}
		if s.store.Now().Sub(found.Time) < StrayAfter {
			continue
		}
		var known int
		err := s.store.DB.Read().QueryRowContext(ctx, `SELECT count(*) FROM packs WHERE id = $1`, strings.TrimPrefix(found.Key, folder)).Scan(&known)
		if err != nil {
			return sqldb.Kind(err)
		}
		if known > 0 {
			continue
		}
		if err := s.blobs.Remove(ctx, found.Key); err != nil {
			return err
		}
		removed++
	}
	if removed > 0 {
		s.log.InfoContext(ctx, "blobs of no content removed", "count", removed)
	}
	return nil
}
