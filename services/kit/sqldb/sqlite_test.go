package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestSQLiteFilesArePrivateAndReadsCannotWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space?&#%", "data")
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: "sqlite:" + dir, Dir: "/nonexistent", Room: "config", Migrations: builds()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v, %v; want 0700", info, err)
	}
	for _, name := range []string{"config.db", "config.db-wal"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", name, info, err)
		}
	}
	if _, err := db.Read().ExecContext(t.Context(), "DELETE FROM builds"); err == nil {
		t.Error("the reading pool wrote")
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := db.Read().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
}

func TestSQLiteIsCheckpointedBesideTheWriter(t *testing.T) {
	t.Parallel() // it waits
	dir := t.TempDir()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: "config", Migrations: builds(), Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	before, err := os.ReadFile(filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := insert(t.Context(), db, "needle in the file"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(before), "needle") {
		t.Fatal("the file knew the row before it was written")
	}
	kittest.Eventually(t, 20*time.Second, func() error {
		file, err := os.ReadFile(filepath.Join(dir, "config.db"))
		if err == nil && !strings.Contains(string(file), "needle in the file") {
			err = errors.New("the log has not been moved into the file")
		}
		return err
	})
}

// Many who print much write all the time. Each gets its turn when it comes, or the line of
// one would wait for several of every other.
func TestWritersOfSQLiteTakeTurnsInTheOrderInWhichTheyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: t.TempDir(), Room: "config", Migrations: builds()})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		begun, end := make(chan struct{}), make(chan struct{})
		var writers sync.WaitGroup
		write := func(ctx context.Context, do func()) {
			err := db.Write(ctx, func(context.Context, *sql.Tx) error { do(); return nil })
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		writers.Go(func() { write(t.Context(), func() { close(begun); <-end }) })
		<-begun
		impatient, leave := context.WithCancel(t.Context())
		var got, want []int
		for n := range 20 {
			ctx := t.Context()
			if n%5 == 0 { // gives up, and is in nobody's way
				ctx = impatient
			} else {
				want = append(want, n)
			}
			writers.Go(func() { write(ctx, func() { got = append(got, n) }) })
			synctest.Wait() // until it waits
		}
		leave()
		synctest.Wait()
		close(end)
		writers.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("the writers came in the order %v, want %v", got, want)
		}
	})
}

func TestBusySQLiteIsUnavailable(t *testing.T) {
	t.Parallel() // it waits
	dir := t.TempDir()
	cfg := sqldb.Config{Dir: dir, Room: "config", Migrations: builds()}
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = db.Write(t.Context(), func(ctx context.Context, _ *sql.Tx) error {
		return other.Write(ctx, func(context.Context, *sql.Tx) error { return nil })
	})
	if got := sqldb.Kind(err); !fault.Is(got, fault.Unavailable) || got.Error() != "the database is busy: try again" {
		t.Errorf("got %v (%v), want unavailable", got, err)
	}
}
