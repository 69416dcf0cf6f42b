package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// PgBouncer lends one connection of the server now to one room and now to another.
// Each room finds its own tables nevertheless, at each of many calls at once.
func TestRoomsKeepToTheirSchemasBehindAPooler(t *testing.T) {
	kittest.Require(t, "pgbouncer")
	url := kittest.PgBouncer(t, kittest.PostgresURL(t))
	open := func(room string) (*sqldb.DB, error) {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Room: room, Migrations: builds(), Log: kittest.Log(t)})
		if err == nil {
			t.Cleanup(func() { _ = db.Close() })
		}
		return db, err
	}
	rooms := []string{"gateway", "scheduler", "reporter"}
	opened := make([]*sqldb.DB, len(rooms))
	var starts errgroup.Group // all at once: each needs two of PgBouncer's two connections to migrate
	for i, room := range rooms {
		starts.Go(func() (err error) {
			opened[i], err = open(room)
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		t.Fatal(err)
	}

	const calls = 40
	var group errgroup.Group
	for i, room := range rooms {
		db := opened[i]
		for n := range calls {
			group.Go(func() error {
				name := fmt.Sprintf("%s %d", room, n)
				if err := insert(t.Context(), db, name); err != nil {
					return err
				}
				var number int64
				if err := db.Read().QueryRowContext(t.Context(), "SELECT number FROM builds WHERE name = $1", name).Scan(&number); err != nil {
					return fmt.Errorf("read %s: %w", name, err)
				}
				if err := db.ReadRow(t.Context(), "SELECT name FROM builds WHERE number = $1", number).Scan(&name); err != nil {
					return fmt.Errorf("read build %d of %s: %w", number, room, err)
				}
				return db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "UPDATE builds SET due = due + $2 WHERE name = $1", name, n)
					return err
				})
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, room := range rooms {
		found := names(t, opened[i])
		slices.Sort(found)
		if len(found) != calls || found[0] != room+" 0" {
			t.Errorf("%s has %d builds, the first is %q; want its own %d", room, len(found), found[0], calls)
		}
	}
	again, err := open("gateway")
	if err != nil {
		t.Fatal(err)
	}
	if found := names(t, again); len(found) != calls {
		t.Errorf("opened again, the gateway has %d builds, want %d", len(found), calls)
	}
}

// What fails behind a pooler fails alone: the connection goes on to serve.
func TestFailuresBehindAPoolerLeaveNothingBehind(t *testing.T) {
	kittest.Require(t, "pgbouncer")
	url := kittest.PgBouncer(t, kittest.PostgresURL(t))
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Room: "scheduler", Migrations: builds(), Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := insert(t.Context(), db, "first"); err != nil {
		t.Fatal(err)
	}
	for range 20 { // more often than there are connections
		if err := insert(t.Context(), db, "first"); !fault.Is(sqldb.Kind(err), fault.Exists) {
			t.Fatalf("insert twice: %v", err)
		}
		if err := db.Read().QueryRowContext(t.Context(), "SELECT nothing FROM builds").Scan(new(string)); err == nil {
			t.Fatal("a column that is not there was read")
		}
		if _, err := db.Read().ExecContext(t.Context(), "DELETE FROM nowhere"); err == nil {
			t.Fatal("a table that is not there was written to")
		}
		changedMyMind := errors.New("changed my mind")
		if err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES ('half')"); err != nil {
				return err
			}
			return changedMyMind
		}); !errors.Is(err, changedMyMind) {
			t.Fatalf("error %v, want the function's own", err)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if err := insert(gone, db, "late"); !errors.Is(err, context.Canceled) {
			t.Fatalf("insert after the end: %v", err)
		}
		var first int
		if err := db.Read().QueryRowContext(t.Context(), "SELECT generate_series(1, 1000)").Scan(&first); err != nil || first != 1 {
			t.Fatalf("read the first of many: %d, %v", first, err)
		}
	}
	if found := names(t, db); !slices.Equal(found, []string{"first"}) {
		t.Errorf("found %q, want the first alone", found)
	}
	if _, err := db.Read().PrepareContext(t.Context(), "SELECT 1"); err == nil { //nolint:sqlclosecheck // there is none
		t.Error("a statement is prepared, which the pooler loses")
	}
}
