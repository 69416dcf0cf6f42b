package kittest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Postgres is a room's empty database, the test's alone until it ends. It needs
// Require(t, "postgres") before.
//
// To make a database and drop it takes half a second, so it is kept on the server for
// the next test, as forge_test_<room>_<fingerprint of its migrations>_<number>, and
// emptied then. Where a test has changed more than rows it is made anew.
func Postgres(t testing.TB, room string, migrations fs.FS) string {
	t.Helper()
	server, admin := postgresServer(t)
	lock, err := admin.Conn(t.Context())
	if err != nil {
		t.Fatalf("connect to TEST_POSTGRES_URL: %v", err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	p := pooled{admin: admin, room: room, migrations: migrations}
	prefix := fmt.Sprintf("forge_test_%s_%s", room, fingerprint(t, room, migrations)[:12])
	for n := 0; ; n++ {
		p.name = fmt.Sprintf("%s_%d", prefix, n)
		locked := false
		if err := lock.QueryRowContext(t.Context(), "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", p.name).Scan(&locked); err != nil {
			t.Fatalf("lock a test database: %v", err)
		}
		if locked {
			break
		}
	}
	server.Path = "/" + p.name
	p.url = server.String()
	// Whoever ended without unlocking it, by a kill, may have left it in any state.
	if err := p.empty(t.Context()); err != nil {
		t.Logf("the test database is made anew: %v", err)
		if err := p.make(t.Context()); err != nil {
			t.Fatalf("make a test database at TEST_POSTGRES_URL: %v", err)
		}
	}
	return p.url
}

// fingerprint tells migrations apart.
func fingerprint(t testing.TB, room string, migrations fs.FS) string {
	t.Helper()
	sum := sha256.New()
	sum.Write([]byte(room))
	if migrations == nil {
		return hex.EncodeToString(sum.Sum(nil))
	}
	err := fs.WalkDir(migrations, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".sql" {
			return err
		}
		text, err := fs.ReadFile(migrations, name)
		sum.Write(fmt.Appendf(nil, "%q %q", name, text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// pooled is a database that one test after the other uses.
type pooled struct {
	admin      *sql.DB
	name, url  string
	room       string
	migrations fs.FS
}

// shape tells what a database consists of, but for its rows.
const shape = `SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
	SELECT format('%s.%s.%s.%s.%s.%s', n.nspname, c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull) AS part
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
		WHERE n.nspname !~ '^(pg_|information_schema)'
	UNION ALL SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)_'
	UNION ALL SELECT format('%s %s %s %s %s', conname, contype, conrelid, conkey, confrelid) FROM pg_constraint
	UNION ALL SELECT format('%s %s', tgname, tgrelid) FROM pg_trigger WHERE NOT tgisinternal
	UNION ALL SELECT format('%s %s', proname, proargtypes) FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace) parts`

// make makes the database, whatever stands under its name.
func (p pooled) make(ctx context.Context) (err error) {
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + p.name + " WITH (FORCE)", "CREATE DATABASE " + p.name} {
		if _, err := p.admin.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	room, err := sqldb.Open(ctx, sqldb.Config{URL: p.url, Room: p.room, Migrations: p.migrations})
	if err != nil {
		return err
	}
	db := room.Read()
	defer func() { err = errors.Join(err, room.Close()) }()
	tables, err := p.tables(ctx, db)
	if err != nil {
		return err
	}
	// What migrations put into a table belongs to an empty database.
	statements := []string{"CREATE SCHEMA forge_seed"}
	for _, table := range tables {
		statements = append(statements, fmt.Sprintf("CREATE TABLE forge_seed.%s AS TABLE %s.%s", table, p.room, table))
	}
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	// The comment comes last: it says that all before is there.
	var made string
	if err := db.QueryRowContext(ctx, shape).Scan(&made); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("COMMENT ON DATABASE %s IS '%s'", p.name, made))
	return err
}

// empty makes the database as it was made. Its error says why that cannot be done.
func (p pooled) empty(ctx context.Context) (err error) {
	var made sql.NullString
	err = p.admin.QueryRowContext(ctx, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1", p.name).Scan(&made)
	if errors.Is(err, sql.ErrNoRows) {
		return errors.New("there is none yet")
	}
	if err != nil {
		return err
	}
	// A process that the last test started may be connected still.
	if _, err := p.admin.ExecContext(ctx, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", p.name); err != nil {
		return err
	}
	db, err := sql.Open("pgx", p.url)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	var now string
	if err := db.QueryRowContext(ctx, shape).Scan(&now); err != nil {
		return err
	}
	if made.String != now {
		return errors.New("it is not as it was made")
	}
	tables, err := p.tables(ctx, db)
	if err != nil || len(tables) == 0 {
		return err
	}
	// In one statement, which foreign keys are held against at its end.
	var deletions []string
	fill := []string{fmt.Sprintf("SELECT setval(format('%%I.%%I', schemaname, sequencename), start_value, false) FROM pg_sequences WHERE schemaname = '%s'", p.room)}
	for _, table := range tables {
		deletions = append(deletions, fmt.Sprintf("%s_ AS (DELETE FROM %s.%s)", table, p.room, table))
		fill = append(fill, fmt.Sprintf("INSERT INTO %s.%s TABLE forge_seed.%s", p.room, table, table))
	}
	for _, statement := range append([]string{"WITH " + strings.Join(deletions, ", ") + " SELECT"}, fill...) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// tables are those of the room, but for the one that says which migrations were made.
func (p pooled) tables(ctx context.Context, db *sql.DB) (names []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename <> 'goose_db_version'", p.room)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}
