package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// What is the oldest that may run on a schema is a row of this table for each
// migration. It is written before the migration is applied, under the same lock:
// a row whose migration failed is above the database's version and counts for
// nothing.
const (
	createVersions = "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)"
	readVersions   = "SELECT version, oldest FROM schema_versions"
)

// storeOldest writes down what this binary's migrations say of themselves.
func storeOldest(ctx context.Context, pool *sql.DB, cfg Config, sources []*goose.Source) error {
	known := map[int64]int64{}
	for _, source := range sources {
		oldest, err := oldestOf(cfg.Migrations, source)
		if err != nil {
			return err
		}
		known[source.Version] = oldest
	}
	stored, err := storedOldest(ctx, pool)
	if err != nil || maps.Equal(known, stored) || len(known) == 0 {
		return err
	}
	var rows []string
	var values []any
	for _, version := range slices.Sorted(maps.Keys(known)) {
		rows = append(rows, fmt.Sprintf("($%d, $%d)", len(values)+1, len(values)+2))
		values = append(values, version, known[version])
	}
	_, err = pool.ExecContext(ctx, "INSERT INTO schema_versions (version, oldest) VALUES "+strings.Join(rows, ", ")+ //nolint:gosec // of $1, $2, …
		" ON CONFLICT (version) DO UPDATE SET oldest = excluded.oldest", values...)
	return err
}

func storedOldest(ctx context.Context, pool *sql.DB) (map[int64]int64, error) {
	if _, err := pool.ExecContext(ctx, createVersions); err != nil {
		return nil, err
	}
	rows, err := pool.QueryContext(ctx, readVersions)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err says the same
	stored := map[int64]int64{}
	for rows.Next() {
		var version, oldest int64
		if err := rows.Scan(&version, &oldest); err != nil {
			return nil, err
		}
		stored[version] = oldest
	}
	return stored, rows.Err()
}

// oldestOf is what a migration says of itself; its own version where it says nothing.
func oldestOf(migrations fs.FS, source *goose.Source) (int64, error) {
	text, err := fs.ReadFile(migrations, source.Path)
	if err != nil {
		return 0, err
	}
	said := regexp.MustCompile(`(?m)^-- oldest: (\d+)$`).FindSubmatch(text)
	if said == nil {
		return source.Version, nil
	}
	oldest, err := strconv.ParseInt(string(said[1]), 10, 64)
	if err != nil || oldest > source.Version {
		return 0, fmt.Errorf("%s: the oldest version is %s, after the migration's own", source.Path, said[1])
	}
	return oldest, nil
}

// mayRun is nil where a binary that knows migrations up to known may run on a
// database that is at a later version, current.
func mayRun(ctx context.Context, provider *goose.Provider, pool *sql.DB, cfg Config, current, known int64) error {
	stored, err := storedOldest(ctx, pool)
	if err != nil {
		return fmt.Errorf("database version of room %s: %w", cfg.Room, err)
	}
	oldest := current
	if _, said := stored[current]; said {
		oldest = 0
		for version, its := range stored {
			if version <= current {
				oldest = max(oldest, its)
			}
		}
	}
	if oldest > known {
		return fmt.Errorf("database of room %s is at version %d, on which Forge runs that knows version %d; this binary knows up to %d: "+
			"run the newer Forge again, or restore the backup", cfg.Room, current, oldest, known)
	}
	states, err := provider.Status(ctx)
	if err != nil {
		return fmt.Errorf("database version of room %s: %w", cfg.Room, err)
	}
	for _, state := range states {
		if state.State == goose.StatePending {
			return fmt.Errorf("database of room %s is at version %d and lacks %d, which this binary needs: run the newer Forge again, or restore the backup",
				cfg.Room, current, state.Source.Version)
		}
	}
	cfg.Log.InfoContext(ctx, "database was migrated by a newer Forge, which lets this one run on it", "room", cfg.Room, "version", current, "known", known)
	return nil
}
