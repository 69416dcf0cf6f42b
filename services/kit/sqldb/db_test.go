package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func migrations(texts ...string) fs.FS {
	files := fstest.MapFS{}
	for i, text := range texts {
		files[fmt.Sprintf("%03d_step.sql", i+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + text + ";")}
	}
	return files
}

const createBuilds = `CREATE TABLE builds (
	number {{ID}}, name TEXT NOT NULL UNIQUE, body {{BYTES}}, share DOUBLE PRECISION NOT NULL DEFAULT 0,
	late BOOLEAN NOT NULL DEFAULT FALSE, due BIGINT NOT NULL DEFAULT 0);
CREATE TABLE steps (build BIGINT NOT NULL REFERENCES builds (number))`

func builds() fs.FS { return migrations(createBuilds) }

func insert(ctx context.Context, db *sqldb.DB, name string) error {
	return db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES ($1)", name)
		return err
	})
}

func names(t *testing.T, db *sqldb.DB) []string {
	t.Helper()
	rows, err := db.Read().QueryContext(t.Context(), "SELECT name FROM builds ORDER BY number")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestOneSQLTextServesBoth(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		due := time.Date(2026, 11, 23, 10, 0, 0, 123456000, time.FixedZone("east", 3600))
		var number, dueMicros int64
		err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `INSERT INTO builds (due, name, body, late, share) VALUES ($2, $1, $3, $4, $5)
				ON CONFLICT (name) DO UPDATE SET due = excluded.due RETURNING number, due`,
				"first", sqldb.Micros(due), []byte{0, 255}, true, 0.5).Scan(&number, &dueMicros)
		})
		if err != nil {
			t.Fatal(err)
		}
		if number != 1 || !sqldb.Time(dueMicros).Equal(due) || sqldb.Time(dueMicros).Location() != time.UTC {
			t.Errorf("number %d, due %v; want 1, %v", number, sqldb.Time(dueMicros), due.UTC())
		}
		var (
			body  []byte
			late  bool
			share float64
		)
		claim := "SELECT body, late, share FROM builds WHERE late AND name = $1 AND $1 <> ''" + db.Dialect.SkipLocked()
		err = db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, claim, "first").Scan(&body, &late, &share)
		})
		if err != nil || !slices.Equal(body, []byte{0, 255}) || !late || share != 0.5 {
			t.Errorf("read %v, %v, %v, %v", body, late, share, err)
		}
	})
}

func TestWriteIsAllOrNothing(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		changedMyMind := errors.New("changed my mind")
		half := func(end func() error) error {
			return db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES ('half')"); err != nil {
					return err
				}
				return end()
			})
		}
		if err := half(func() error { return changedMyMind }); !errors.Is(err, changedMyMind) {
			t.Errorf("error %v, want the function's own", err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = half(func() error { panic("broken") })
		}()
		if err := insert(t.Context(), db, "whole"); err != nil {
			t.Fatal(err)
		}
		if got := names(t, db); !slices.Equal(got, []string{"whole"}) {
			t.Errorf("stored %v, want the whole one only", got)
		}
	})
}

func TestCommittedRowsSurviveARestart(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		if err := insert(t.Context(), db, "kept"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if got := names(t, open()); !slices.Equal(got, []string{"kept"}) {
			t.Errorf("stored %v after a restart", got)
		}
	})
}

func TestConcurrentWritersAllGetTheirTurn(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		// Two handles are two processes to the database.
		handles := []*sqldb.DB{open(), open()}
		if err := insert(t.Context(), handles[0], "counter"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				err := handles[i%2].Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "UPDATE builds SET due = due + 1 WHERE name = 'counter'")
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var count int
		if err := handles[0].Read().QueryRowContext(t.Context(), "SELECT due FROM builds").Scan(&count); err != nil || count != 20 {
			t.Errorf("counted %d, %v; want 20", count, err)
		}
	})
}

// eachConfig is for tests that open the database themselves.
func eachConfig(t *testing.T, test func(t *testing.T, cfg sqldb.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqldb.Config{Dir: t.TempDir(), Room: "reporter", Log: kittest.Log(t)}) })
	t.Run("postgres", func(t *testing.T) {
		kittest.Require(t, "postgres")
		test(t, sqldb.Config{URL: kittest.PostgresURL(t), Room: "reporter", Log: kittest.Log(t)})
	})
}

func TestProcessesStartingTogetherMigrateOnce(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
		cfg.Migrations = migrations(createBuilds, "ALTER TABLE builds ADD COLUMN more TEXT")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				db, err := sqldb.Open(t.Context(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestNewerMigrationsAreAppliedAndOlderBinariesRefused(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg sqldb.Config) {
		for _, step := range []struct {
			migrations fs.FS
			want       string
		}{
			{migrations(createBuilds), ""},
			{migrations(createBuilds, "ALTER TABLE builds ADD COLUMN more TEXT", "SELECT 1"), ""},
			{migrations(createBuilds), "database of room reporter is at version 3, on which Forge runs that knows version 3; this binary knows up to 1: run the newer Forge again, or restore the backup"},
			{migrations(createBuilds, "SELECT 1", "SELECT 1", "CREATE TABLE oops (("), "migrate the database of room reporter: "},
			{migrations(createBuilds, "SELECT 1", "SELECT 1", "CREATE TABLE fine (a TEXT)"), ""},
		} {
			cfg.Migrations = step.migrations
			db, err := sqldb.Open(t.Context(), cfg)
			if err == nil {
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			switch {
			case step.want == "" && err != nil:
				t.Fatal(err)
			case step.want != "" && (err == nil || !strings.HasPrefix(err.Error(), step.want)):
				t.Fatalf("error %v, want %s", err, step.want)
			}
		}
	})
}

func TestDriverErrorsGetAKind(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		if err := insert(t.Context(), db, "twice"); err != nil {
			t.Fatal(err)
		}
		twice := insert(t.Context(), db, "twice")
		none := db.Read().QueryRowContext(t.Context(), "SELECT name FROM builds WHERE number = 99").Scan(new(string))
		broken := db.Read().QueryRowContext(t.Context(), "SELEKT").Scan(new(string))
		orphan := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO steps (build) VALUES (99)")
			return err
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		stopped := insert(ctx, db, "late")
		for _, c := range []struct {
			name string
			err  error
			kind fault.Kind
			text string
		}{
			{"unique violation", twice, fault.Exists, "exists already"},
			{"no rows", fmt.Errorf("build 99: %w", none), fault.NotFound, "not found"},
			{"kept kind", fault.New(fault.Conflict, "build is done"), fault.Conflict, "build is done"},
			{"broken SQL", broken, fault.Internal, broken.Error()},
			{"foreign key", orphan, fault.Internal, fmt.Sprint(orphan)},
			{"stopped", stopped, fault.Internal, fmt.Sprint(stopped)},
		} {
			got := sqldb.Kind(c.err)
			if got == nil || fault.KindOf(got) != c.kind || got.Error() != c.text || !errors.Is(got, c.err) {
				t.Errorf("%s: %v is %v, want %v, %s", c.name, got, fault.KindOf(got), c.kind, c.text)
			}
		}
		if !errors.Is(sqldb.Kind(stopped), context.Canceled) {
			t.Errorf("stopped: %v, want context.Canceled", stopped)
		}
		if err := sqldb.Kind(nil); err != nil {
			t.Errorf("kind of no error is %v", err)
		}
	})
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	for want, cfg := range map[string]sqldb.Config{
		`database URL of room config: unknown scheme "mysql"; use postgres://… or sqlite:<directory>`: {URL: "mysql://x", Room: "config"},
		`database room "Con fig": use lower-case letters, digits and underscores`:                     {Room: "Con fig"},
	} {
		if _, err := sqldb.Open(t.Context(), cfg); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestMomentsRoundTrip(t *testing.T) {
	if got := sqldb.Time(sqldb.Micros(time.Time{})); !got.IsZero() {
		t.Errorf("zero time became %v", got)
	}
	if got := sqldb.Micros(time.Unix(1, 2500)); got != 1000002 {
		t.Errorf("got %d", got)
	}
}
