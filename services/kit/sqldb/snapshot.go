package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
)

// openFile opens a SQLite file that is there, with these pragmas; it makes none.
func openFile(path string, pragmas ...string) (*sql.DB, error) {
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{"mode": {"rw"}, "_pragma": pragmas}.Encode()}
	db, err := sql.Open("sqlite", file.String())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// Snapshot copies the SQLite file of a room in dir, as it is at one moment, to a file that
// is not there yet. Others may have it open and write meanwhile. It returns the version of
// the schema.
func Snapshot(ctx context.Context, dir, room, to string) (version int64, err error) {
	path, err := filepath.Abs(filepath.Join(dir, room+".db"))
	if err != nil {
		return 0, fmt.Errorf("copy the database of room %s: %w", room, err)
	}
	db, err := openFile(path, "busy_timeout(10000)")
	if err != nil {
		return 0, fmt.Errorf("copy the database of room %s: %w", room, err)
	}
	defer db.Close() //nolint:errcheck // nothing was written
	if _, err := db.ExecContext(ctx, "VACUUM INTO $1", to); err != nil {
		return 0, fmt.Errorf("copy the database of room %s: %w", room, err)
	}
	made, err := openFile(to)
	if err != nil {
		return 0, fmt.Errorf("read the copy of the database of room %s: %w", room, err)
	}
	defer made.Close() //nolint:errcheck // nothing was written
	if err := made.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("schema of room %s: %w", room, err)
	}
	return version, nil
}

// Intact is nil where SQLite finds nothing wrong with a database.
func (db *DB) Intact(ctx context.Context) error {
	var found string
	if err := db.read.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("the database is damaged: %s", found)
	}
	return nil
}

// Alone is nil where no other process has the SQLite file of a room in dir open.
func Alone(ctx context.Context, dir, room string) error {
	path, err := filepath.Abs(filepath.Join(dir, room+".db"))
	if err != nil {
		return err
	}
	db, err := openFile(path, "locking_mode(EXCLUSIVE)")
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing was written
	// Who has a file in WAL mode open holds a lock on it all the time, which this one
	// cannot be together with.
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return fmt.Errorf("%s is in use: %w", path, err)
	}
	_, err = db.ExecContext(ctx, "ROLLBACK")
	return err
}
