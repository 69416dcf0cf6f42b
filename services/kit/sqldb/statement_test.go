package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// The first time a statement is run as it is, later compiled: no difference.
func TestCompiledStatementsDoTheSame(t *testing.T) {
	migrations := fstest.MapFS{"001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (b BIGINT);")}}
	kittest.DBs(t, "config", migrations, func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		add := func(n int) {
			err := db.Write(t.Context(), func(ctx context.Context, raw *sql.Tx) error {
				tx := db.Compiled(raw)
				if _, err := tx.ExecContext(ctx, `INSERT INTO a (b) VALUES ($1)`, n); err != nil {
					return err
				}
				var rows int
				if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM a WHERE b = $1`, n).Scan(&rows); err != nil || rows != 1 {
					t.Errorf("%d rows with %d, %v", rows, n, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		for n := range 3 {
			add(n)
		}
		var together sync.WaitGroup
		for n := range 8 {
			together.Go(func() { add(n + 3) })
		}
		together.Wait()
		var rows int
		if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM a`).Scan(&rows); err != nil || rows != 11 {
			t.Errorf("%d rows, %v", rows, err)
		}
	})
}

func TestCompiledReadsDoTheSame(t *testing.T) {
	migrations := fstest.MapFS{"001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (b BIGINT);\nINSERT INTO a (b) VALUES (1), (2);")}}
	kittest.DBs(t, "config", migrations, func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		var together sync.WaitGroup
		for range 8 {
			together.Go(func() {
				for n := range 3 {
					var found int
					err := db.ReadRow(t.Context(), `SELECT b FROM a WHERE b = $1`, n).Scan(&found)
					if n == 0 && !errors.Is(err, sql.ErrNoRows) || n > 0 && (err != nil || found != n) {
						t.Errorf("%d is read as %d, %v", n, found, err)
					}
				}
			})
		}
		together.Wait()
		if err := db.ReadRow(t.Context(), `SELECT nonsense FROM a`).Scan(new(int)); err == nil {
			t.Error("nonsense is read")
		}
	})
}
