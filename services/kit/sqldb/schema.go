package sqldb

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// Schema is where the schema of a room is, and up to where one of its processes knows it.
// The process does no harm there as long as Known is not before Oldest.
type Schema struct {
	Room    string `json:"room"`
	Known   int64  `json:"known"`
	Current int64  `json:"current"`
	Oldest  int64  `json:"oldest"`
}

// Schema reads how the schema is now: another process may have moved it on since Open.
func (db *DB) Schema(ctx context.Context) (Schema, error) {
	s := Schema{Room: db.room}
	names, err := fs.Glob(db.migrations, "*.sql")
	if err != nil {
		return s, err
	}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return s, fmt.Errorf("migration %s: %w", name, err)
		}
		s.Known = max(s.Known, version)
	}
	var said bool
	err = db.read.QueryRowContext(ctx, `SELECT current, COALESCE(MAX(CASE WHEN version = current THEN 1 ELSE 0 END), 0) = 1, COALESCE(MAX(oldest), 0)
		FROM (SELECT COALESCE(MAX(version_id), 0) AS current FROM goose_db_version) AS at LEFT JOIN schema_versions ON version <= current GROUP BY current`).
		Scan(&s.Current, &said, &s.Oldest)
	if err != nil {
		return s, fmt.Errorf("schema of room %s: %w", db.room, Kind(err))
	}
	if !said { // it was migrated by one that does not say what may run on it
		s.Oldest = s.Current
	}
	return s, nil
}
