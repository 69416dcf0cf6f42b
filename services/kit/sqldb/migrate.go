package sqldb

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/pressly/goose/v3"
)

// migrate applies what is missing, or says that what is there is too new. The
// caller holds the lock.
func migrate(ctx context.Context, dialect goose.Dialect, pool *sql.DB, cfg Config) error {
	if err := pool.PingContext(ctx); err != nil {
		return fmt.Errorf("open the database of room %s: %w", cfg.Room, err)
	}
	if cfg.Migrations == nil {
		return nil
	}
	provider, err := goose.NewProvider(dialect, pool, dialectFS{cfg.Migrations, dialect},
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(cfg.Log))
	if err != nil {
		return fmt.Errorf("migrations of room %s: %w", cfg.Room, err)
	}
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("database version of room %s: %w", cfg.Room, err)
	}
	if current > known {
		return mayRun(ctx, provider, pool, cfg, current, known)
	}
	if err := storeOldest(ctx, pool, cfg, provider.ListSources()); err != nil {
		return fmt.Errorf("migrations of room %s: %w", cfg.Room, err)
	}
	applied, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate the database of room %s: %w", cfg.Room, err)
	}
	if len(applied) > 0 {
		cfg.Log.InfoContext(ctx, "database migrated", "room", cfg.Room, "from", current, "to", known)
	}
	return nil
}

func types(dialect goose.Dialect) *strings.Replacer {
	if dialect == goose.DialectPostgres {
		return strings.NewReplacer("{{BYTES}}", "BYTEA", "{{ID}}", "BIGSERIAL PRIMARY KEY")
	}
	return strings.NewReplacer("{{BYTES}}", "BLOB", "{{ID}}", "INTEGER PRIMARY KEY")
}

// onlyFor is what stands between a line "-- only: sqlite" or "-- only: postgres" and the
// next such line, or "-- only: end".
var onlyFor = regexp.MustCompile(`(?ms)^-- only: (sqlite|postgres)\n(.*?)^(-- only: )`)

// fill is a migration as one dialect has it.
func fill(dialect goose.Dialect, text string) string {
	own := map[goose.Dialect]string{goose.DialectSQLite3: "sqlite", goose.DialectPostgres: "postgres"}[dialect]
	for {
		at := onlyFor.FindStringSubmatchIndex(text)
		if at == nil {
			return types(dialect).Replace(text)
		}
		kept := ""
		if text[at[2]:at[3]] == own {
			kept = text[at[4]:at[5]]
		}
		text = text[:at[0]] + kept + text[at[6]:]
	}
}

// dialectFS shows the migrations as one dialect has them.
type dialectFS struct {
	fs.FS
	dialect goose.Dialect
}

func (d dialectFS) Open(name string) (fs.File, error) {
	file, err := d.FS.Open(name)
	if err != nil || path.Ext(name) != ".sql" {
		return file, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return filledFile{file, bytes.NewReader([]byte(fill(d.dialect, string(text))))}, nil
}

type filledFile struct {
	fs.File
	text *bytes.Reader
}

func (f filledFile) Read(p []byte) (int, error) { return f.text.Read(p) }
