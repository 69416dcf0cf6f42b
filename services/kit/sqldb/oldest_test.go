package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// release is what a version of Forge knows: its migrations, by their numbers.
func release(files ...string) fs.FS {
	all := map[string]string{
		"001_builds.sql":  "-- +goose Up\n" + createBuilds + ";",
		"005_more.sql":    "-- oldest: 1\n-- +goose Up\nALTER TABLE builds ADD COLUMN more TEXT;",
		"007_jobs.sql":    "-- oldest: 5\n-- +goose Up\nCREATE TABLE jobs (name TEXT);",
		"007_wrong.sql":   "-- +goose Up\nCREATE TABLE oops ((;",
		"008_index.sql":   "-- oldest: 1\n-- +goose Up\nCREATE INDEX jobs_name ON jobs (name);",
		"009_future.sql":  "-- oldest: 10\n-- +goose Up\nSELECT 1;",
		"012_renamed.sql": "-- +goose Up\nALTER TABLE builds RENAME TO things;",
	}
	known := fstest.MapFS{}
	for _, name := range files {
		known[name] = &fstest.MapFile{Data: []byte(all[name])}
	}
	return known
}

func TestAnOlderBinaryRunsOnANewerSchemaThatAllowsIt(t *testing.T) {
	const restore = ": run the newer Forge again, or restore the backup"
	first, more, jobs := release("001_builds.sql"), release("001_builds.sql", "005_more.sql"), release("001_builds.sql", "005_more.sql", "007_jobs.sql")
	index := release("001_builds.sql", "005_more.sql", "007_jobs.sql", "008_index.sql")
	newest := release("001_builds.sql", "005_more.sql", "007_jobs.sql", "008_index.sql", "012_renamed.sql")
	type start struct {
		migrations fs.FS
		refused    string
	}
	for name, starts := range map[string][]start{
		"one that may": {{more, ""}, {first, ""}, {more, ""}, {first, ""}},
		"one too old for a migration before the newest": {
			{index, ""},
			{first, "database of room reporter is at version 8, on which Forge runs that knows version 5; this binary knows up to 1" + restore},
			{more, ""},
			{jobs, ""},
		},
		"none but the newest": {
			{newest, ""},
			{index, "database of room reporter is at version 12, on which Forge runs that knows version 12; this binary knows up to 8" + restore},
			{newest, ""},
		},
		"a migration that fails forbids nothing": {
			{more, ""},
			{release("001_builds.sql", "005_more.sql", "007_wrong.sql"), "migrate the database of room reporter: "},
			{first, ""},
			{more, ""},
		},
		"another line of versions": {
			{release("001_builds.sql", "007_jobs.sql"), ""},
			{more, "database of room reporter is at version 7 and lacks 5, which this binary needs" + restore},
		},
		"a migration that asks for a later one": {
			{release("001_builds.sql", "009_future.sql"), "migrations of room reporter: 009_future.sql: the oldest version is 10, after the migration's own"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
				for _, s := range starts {
					cfg.Migrations = s.migrations
					db, err := sqldb.Open(t.Context(), cfg)
					switch {
					case err != nil && (s.refused == "" || !strings.HasPrefix(err.Error(), s.refused)):
						t.Fatalf("%v, want %q", err, s.refused)
					case err != nil:
						continue
					case s.refused != "":
						t.Errorf("it runs, and should say %q", s.refused)
					}
					table := "builds"
					if _, renamed := s.migrations.(fstest.MapFS)["012_renamed.sql"]; renamed {
						table = "things"
					}
					err = db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
						_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (name) SELECT 'build ' || count(*) FROM %s", table, table))
						return err
					})
					if err != nil {
						t.Errorf("it is let in and cannot write: %v", err)
					}
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// A database of before migrations said what is the oldest learns it from the next
// binary that knows them all.
func TestADatabaseLearnsWhichIsTheOldest(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
		open := func(migrations fs.FS) (*sqldb.DB, error) {
			cfg.Migrations = migrations
			return sqldb.Open(t.Context(), cfg)
		}
		more := release("001_builds.sql", "005_more.sql")
		db, err := open(more)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "DROP TABLE schema_versions")
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if db, err := open(release("001_builds.sql")); err == nil {
			_ = db.Close()
			t.Error("it runs on a schema of which nothing is known")
		}
		for _, migrations := range []fs.FS{more, release("001_builds.sql")} {
			db, err := open(migrations)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOldAndNewBinariesStartTogether(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
		var starts sync.WaitGroup
		for n := range 8 {
			cfg := cfg
			cfg.Migrations = release([]string{"001_builds.sql", "005_more.sql", "007_jobs.sql", "008_index.sql"}[:2+n%3]...)
			starts.Go(func() {
				db, err := sqldb.Open(t.Context(), cfg)
				if err != nil { // 5 is the oldest on 8, and each knows it
					t.Error(err)
					return
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
	})
}

// A process is told when another has moved the schema on, past what it may run on or not.
func TestASchemaTellsWhoMayRunOnIt(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
		open := func(files ...string) *sqldb.DB {
			cfg.Migrations = release(files...)
			db, err := sqldb.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			return db
		}
		first := open("001_builds.sql")
		for _, next := range []struct {
			files []string
			want  sqldb.Schema
		}{
			{[]string{"001_builds.sql"}, sqldb.Schema{Room: cfg.Room, Known: 1, Current: 1, Oldest: 1}},
			{[]string{"001_builds.sql", "005_more.sql"}, sqldb.Schema{Room: cfg.Room, Known: 1, Current: 5, Oldest: 1}},
			{[]string{"001_builds.sql", "005_more.sql", "007_jobs.sql", "008_index.sql"}, sqldb.Schema{Room: cfg.Room, Known: 1, Current: 8, Oldest: 5}},
		} {
			open(next.files...)
			if got, err := first.Schema(t.Context()); err != nil || got != next.want {
				t.Errorf("%+v, %v; want %+v", got, err, next.want)
			}
		}
	})
}
