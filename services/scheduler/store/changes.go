package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	// changesEvery is how often a process looks for what others have changed. It is
	// one query for all who wait there.
	changesEvery = 250 * time.Millisecond
	// changesRetryMost bounds the pause after a look that failed.
	changesRetryMost = 5 * time.Second
	// changesKept is how long a change is there to be read. Who has not looked for
	// half of it takes everything for changed.
	changesKept = 2 * time.Minute
)

// writeChanges stores the topics of a change in its own transaction.
func (t *Tx) writeChanges(ctx context.Context, topics []string) error {
	if len(topics) == 0 || t.store.DB.Dialect != sqldb.Postgres {
		return nil
	}
	err := t.Exec(ctx, `INSERT INTO changes (topic, xid, written_time)
		SELECT DISTINCT topic, pg_current_xact_id(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM unnest($1::text[]) topic`, topics)
	if err != nil {
		return fmt.Errorf("write changes: %w", err)
	}
	return nil
}

// FollowChanges tells those who wait in this process of what others have
// committed, until ctx ends. A SQLite file has one process, where Notify has
// told them.
func (s *Store) FollowChanges(ctx context.Context, log *slog.Logger) error {
	if s.DB.Dialect != sqldb.Postgres {
		<-ctx.Done()
		return nil
	}
	f := &follower{store: s}
	timer := time.NewTimer(0)
	defer timer.Stop()
	prune := time.NewTicker(changesKept / 4)
	defer prune.Stop()
	errs := 0
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-prune.C:
			if err := s.pruneChanges(ctx); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "changes not pruned", "error", err)
			}
			continue
		case <-timer.C:
			err = f.look(ctx)
		}
		pause := changesEvery
		if err == nil {
			errs = 0
		} else if ctx.Err() == nil {
			errs++
			pause = due.Backoff(errs, changesEvery, changesRetryMost, rand.Float64)
			log.WarnContext(ctx, "changes of other replicas not read", "retry_in", pause, "error", err)
		}
		timer.Reset(pause)
	}
}

// follower reads each change once, whatever the order in which transactions
// began and were committed: a snapshot names exactly those whose changes it
// shows, and what the next one shows besides is new.
type follower struct {
	store *Store
	last  snapshot
}

// snapshot is a state of the database.
type snapshot struct {
	name sql.NullString // as PostgreSQL writes a pg_snapshot; null: none yet
	time int64          // by the clock of the database
}

// look tells those who wait of what was committed since the last look. Where
// nobody waits it asks nothing, and what was last seen is forgotten.
func (f *follower) look(ctx context.Context) error {
	if f.store.Notifier.idle() {
		f.last = snapshot{}
		return nil
	}
	var next snapshot
	var backwards bool
	var raw []byte
	// One statement has one snapshot, for its rows and for its name. The first
	// condition is a step into the index, the second is the exact one.
	err := f.store.DB.Read().QueryRowContext(ctx, `SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
			COALESCE(pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax($1::text::pg_snapshot), FALSE),
			array_to_json(ARRAY(SELECT DISTINCT topic FROM changes WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot)
				AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)))::text`, f.last.name).
		Scan(&next.name, &next.time, &backwards, &raw)
	if err != nil {
		return fmt.Errorf("read changes: %w", sqldb.Kind(err))
	}
	var topics []string
	if err := json.Unmarshal(raw, &topics); err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	// Another server may have taken over, where the numbers of transactions are others.
	missed := !f.last.name.Valid || backwards || next.time-f.last.time > (changesKept/2).Microseconds()
	f.last = next
	if missed {
		f.store.Notifier.notifyAll()
		return nil
	}
	f.store.Notifier.Notify(topics...)
	return nil
}

// pruneChanges removes what everybody has read.
func (s *Store) pruneChanges(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		return t.Exec(ctx, `DELETE FROM changes WHERE written_time < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1::bigint`, changesKept.Microseconds())
	})
}
