package sqldb_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// A copy has all of a transaction or nothing of it, whatever is written meanwhile.
func TestASnapshotIsOfOneMoment(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	db, err := sqldb.Open(ctx, sqldb.Config{Dir: dir, Room: "scheduler", Migrations: builds()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stop, done := make(chan struct{}), make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			err := db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
				for _, half := range []string{"a", "b"} {
					if _, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES ($1)", fmt.Sprint(half, n)); err != nil {
						return err
					}
				}
				return nil
			})
			if n == 10 {
				close(begun)
			}
			select {
			case <-stop:
				done <- err
				return
			default:
				if err != nil {
					done <- err
					return
				}
			}
		}
	}()
	<-begun
	if err := sqldb.Alone(ctx, dir, "scheduler"); err == nil {
		t.Error("a database that is written to is said to be in use by nobody")
	}
	last := 0
	for n := range 5 {
		copies := t.TempDir()
		version, err := sqldb.Snapshot(ctx, dir, "scheduler", filepath.Join(copies, "scheduler.db"))
		if err != nil || version != 1 {
			t.Fatalf("copy %d: schema %d, %v", n, version, err)
		}
		made, err := sqldb.Open(ctx, sqldb.Config{Dir: copies, Room: "scheduler", Migrations: builds()})
		if err != nil {
			t.Fatal(err)
		}
		var as, bs int
		err = made.Read().QueryRowContext(ctx, "SELECT COUNT(CASE WHEN name LIKE 'a%' THEN 1 END), COUNT(CASE WHEN name LIKE 'b%' THEN 1 END) FROM builds").Scan(&as, &bs)
		if err != nil || as != bs || as < 10 || as < last {
			t.Errorf("copy %d has %d and %d halves after %d: %v", n, as, bs, last, err)
		}
		last = as
		if err := made.Intact(ctx); err != nil {
			t.Error(err)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := sqldb.Alone(ctx, dir, "scheduler"); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
	if _, err := sqldb.Snapshot(ctx, dir, "none", filepath.Join(dir, "copy.db")); err == nil {
		t.Error("what is not there was copied")
	}
}
