package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Inspection is what is seen of a database by somebody who does not use it.
type Inspection struct {
	Exists         bool  // the room has been there
	Current, Known int64 // the version that its schema is at, and the newest of Config.Migrations
}

// Inspect looks at a room's database, which others may use meanwhile. It changes
// nothing. An error says that it does not answer, that it cannot be written to, or that
// it is of a newer Forge which does not let this one run on it.
func Inspect(ctx context.Context, cfg Config) (Inspection, error) {
	switch scheme, rest, _ := strings.Cut(cfg.URL, ":"); scheme {
	case "":
		return inspectSQLite(ctx, cfg, cfg.Dir)
	case "sqlite":
		return inspectSQLite(ctx, cfg, rest)
	case "postgres", "postgresql":
		return inspectPostgres(ctx, cfg)
	default:
		return Inspection{}, fmt.Errorf("database URL: unknown scheme %q; use postgres://…", scheme)
	}
}

func inspectSQLite(ctx context.Context, cfg Config, dir string) (found Inspection, err error) {
	path, err := filepath.Abs(filepath.Join(dir, cfg.Room+".db"))
	if err != nil {
		return found, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)"}}
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	pool, err := sql.Open("sqlite", file.String())
	if err != nil {
		return found, fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	pool.SetMaxOpenConns(1)
	found, err = inspect(ctx, goose.DialectSQLite3, pool, cfg,
		"SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'goose_db_version'", "")
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return found, err
}

func inspectPostgres(ctx context.Context, cfg Config) (found Inspection, err error) {
	pg, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return found, err // pgx leaves the password out
	}
	pg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // a pooler may be between
	pool := stdlib.OpenDB(*pg)
	defer func() { err = errors.Join(err, pool.Close()) }()
	pool.SetMaxOpenConns(1)
	return inspect(ctx, goose.DialectPostgres, pool, cfg,
		"SELECT COUNT(*) > 0 FROM pg_tables WHERE tablename = 'goose_db_version' AND schemaname = '"+cfg.Room+"'", pgx.Identifier{cfg.Room}.Sanitize()+".")
}

// inspect has all in one transaction, which is not committed.
func inspect(ctx context.Context, dialect goose.Dialect, pool *sql.DB, cfg Config, exists, schema string) (found Inspection, err error) {
	provider, err := goose.NewProvider(dialect, pool, dialectFS{cfg.Migrations, dialect}, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return found, fmt.Errorf("migrations: %w", err)
	}
	for _, source := range provider.ListSources() {
		found.Known = max(found.Known, source.Version)
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return found, err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, exists).Scan(&found.Exists); err != nil || !found.Exists {
		return found, err
	}
	err = tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+schema+"goose_db_version").Scan(&found.Current)
	if err != nil {
		return found, err
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE "+schema+"doctor_probe (n INTEGER)"); err != nil {
		return found, fmt.Errorf("it cannot be written to: %w", err)
	}
	if found.Current <= found.Known {
		return found, nil
	}
	return found, fits(ctx, tx, schema, cfg.Room, found)
}

// fits is nil where this binary may run on a later schema than it knows.
func fits(ctx context.Context, tx *sql.Tx, schema, room string, found Inspection) error {
	var said bool
	var oldest int64
	err := tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(CASE WHEN version = $1 THEN 1 ELSE 0 END), 0) = 1, COALESCE(MAX(oldest), 0) FROM "+schema+"schema_versions WHERE version <= $1",
		found.Current).Scan(&said, &oldest)
	if err != nil || !said {
		oldest = found.Current
	}
	if oldest > found.Known {
		return fmt.Errorf("it is of a newer Forge: the schema of %s is at version %d, and this one knows up to %d", room, found.Current, found.Known)
	}
	return nil
}
