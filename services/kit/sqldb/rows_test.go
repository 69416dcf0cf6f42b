package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMarks(t *testing.T) {
	for _, c := range []struct{ what, got, want string }{
		{"none", sqldb.Marks(1, 0), ""},
		{"one", sqldb.Marks(7, 1), "$7"},
		{"some", sqldb.Marks(2, 3), "$2, $3, $4"},
		{"no rows", sqldb.RowMarks(0, 2), ""},
		{"one row", sqldb.RowMarks(1, 3), "($1, $2, $3)"},
		{"rows", sqldb.RowMarks(3, 2), "($1, $2), ($3, $4), ($5, $6)"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestCollect(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		name := func(row sqldb.Row) (name string, err error) { return name, row.Scan(&name) }
		err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES "+sqldb.RowMarks(3, 1), "a", "b", "c")
			if err != nil {
				return err
			}
			found, err := sqldb.Collect(ctx, tx, name, "SELECT name FROM builds WHERE name IN ("+sqldb.Marks(1, 2)+") ORDER BY name"+db.Dialect.ForUpdate(), "c", "a")
			kittest.Want(t, found, []string{"a", "c"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		found, err := sqldb.Collect(t.Context(), db.Read(), name, "SELECT name FROM builds WHERE name = $1", "d")
		if len(found) != 0 || err != nil {
			t.Errorf("of no rows: %v, %v", found, err)
		}
		if first, err := sqldb.First(t.Context(), db.Read(), name, "SELECT name FROM builds ORDER BY name DESC"); first != "c" || err != nil {
			t.Errorf("the first of three: %q, %v", first, err)
		}
		if first, err := sqldb.First(t.Context(), db.Read(), name, "SELECT name FROM builds WHERE name = $1", "d"); first != "" || err != nil {
			t.Errorf("the first of no rows: %q, %v", first, err)
		}
		broken := errors.New("broken")
		_, err = sqldb.Collect(t.Context(), db.Read(), func(sqldb.Row) (int, error) { return 0, broken }, "SELECT name FROM builds")
		if !errors.Is(err, broken) {
			t.Errorf("a row that cannot be read: %v", err)
		}
		if _, err = sqldb.First(t.Context(), db.Read(), name, "SELECT colour FROM builds"); err == nil {
			t.Error("a query that is wrong has no first row, and says nothing")
		}
		if _, err = sqldb.Collect(t.Context(), db.Read(), name, "SELECT colour FROM builds"); err == nil {
			t.Error("a query that is wrong finds nothing, and says nothing")
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err = sqldb.Collect(ended, db.Read(), name, "SELECT name FROM builds"); !errors.Is(err, context.Canceled) {
			t.Errorf("after its end: %v", err)
		}
	})
}

func TestLeasesOfTheDeadAreFreedOnSQLiteAlone(t *testing.T) {
	kittest.DBs(t, "scheduler", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		err := db.FreeLeases(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO builds (name) VALUES ('free')")
			return err
		})
		if want := db.Dialect == sqldb.SQLite; err != nil || (len(names(t, db)) == 1) != want {
			t.Errorf("%v, leases freed: %v; want %v", err, names(t, db), want)
		}
		err = db.FreeLeases(t.Context(), func(context.Context, *sql.Tx) error { return fault.New(fault.Conflict, "broken") })
		if db.Dialect == sqldb.SQLite && (!fault.Is(err, fault.Conflict) || err.Error() != "free leases: broken") {
			t.Errorf("a failure: %v", err)
		}
	})
}
