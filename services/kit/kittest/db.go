package kittest

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// DBs runs the test once per kind of database, each time on an empty one. open
// may be called again for a restart on the same data; what it opened is closed
// at the end of the test, or earlier by the test.
func DBs(t *testing.T, room string, migrations fs.FS, test func(t *testing.T, open func() *sqldb.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		test(t, opener(t, sqldb.Config{Dir: SQLiteDir(t, room, migrations), Room: room, Migrations: migrations, Log: Log(t)}))
	})
	t.Run("postgres", func(t *testing.T) {
		Require(t, "postgres")
		test(t, opener(t, sqldb.Config{URL: Postgres(t, room, migrations), Room: room, Migrations: migrations, Log: Log(t)}))
	})
}

func opener(t *testing.T, cfg sqldb.Config) func() *sqldb.DB {
	return func() *sqldb.DB {
		t.Helper()
		db, err := sqldb.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Errorf("close the database: %v", err)
			}
		})
		return db
	}
}

// PostgresURL makes a database that lives as long as the test, with nothing in it.
// It needs Require(t, "postgres") before.
func PostgresURL(t testing.TB) string {
	t.Helper()
	server, admin := postgresServer(t)
	name := fmt.Sprintf("forge_test_%016x", rand.Uint64())
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("create a test database at TEST_POSTGRES_URL: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := admin.ExecContext(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	server.Path = "/" + name
	return server.String()
}

// postgresServer is TEST_POSTGRES_URL, and connections to it that live as long as the
// test.
func postgresServer(t testing.TB) (*url.URL, *sql.DB) {
	t.Helper()
	server, err := url.Parse(os.Getenv("TEST_POSTGRES_URL"))
	if err != nil {
		t.Fatalf("TEST_POSTGRES_URL: %v", err)
	}
	admin, err := sql.Open("pgx", server.String())
	if err != nil {
		t.Fatalf("TEST_POSTGRES_URL: %v", err)
	}
	t.Cleanup(func() {
		if err := admin.Close(); err != nil {
			t.Errorf("close the connection to TEST_POSTGRES_URL: %v", err)
		}
	})
	return server, admin
}
