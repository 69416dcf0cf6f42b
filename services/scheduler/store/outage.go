package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// NoteOutage stores that the engine does not tell what runs, if it did before.
func (s *Store) NoteOutage(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error {
		return t.Exec(ctx, `INSERT INTO engine_outage (id, since) VALUES (1, $1) ON CONFLICT DO NOTHING`, sqldb.Micros(t.Now))
	})
}

// NoteOutageOver stores that the engine tells again what runs.
func (s *Store) NoteOutageOver(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, t *Tx) error { return t.Exec(ctx, `DELETE FROM engine_outage`) })
}

// OutageSince is since when the engine does not tell what runs; zero where it does.
func (s *Store) OutageSince(ctx context.Context) (time.Time, error) {
	var since int64
	err := s.DB.Read().QueryRowContext(ctx, `SELECT since FROM engine_outage`).Scan(&since)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return sqldb.Time(since), sqldb.Kind(err)
}
