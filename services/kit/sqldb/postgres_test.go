package sqldb_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestDeadlockedTransactionRunsAgain(t *testing.T) {
	kittest.Require(t, "postgres")
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: kittest.PostgresURL(t), Room: "config", Migrations: builds()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"a", "b"} {
		if err := insert(t.Context(), db, name); err != nil {
			t.Fatal(err)
		}
	}
	var (
		wg   sync.WaitGroup
		both sync.WaitGroup // hold their first row
		mu   sync.Mutex
		runs int
	)
	both.Add(2)
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		wg.Go(func() {
			first := true
			err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				mu.Lock()
				runs++
				mu.Unlock()
				for i, name := range order {
					if _, err := tx.ExecContext(ctx, "UPDATE builds SET due = due + 1 WHERE name = $1", name); err != nil {
						return err
					}
					if i == 0 && first {
						first = false
						both.Done()
						both.Wait()
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var sum int
	if err := db.Read().QueryRowContext(t.Context(), "SELECT sum(due) FROM builds").Scan(&sum); err != nil || sum != 4 || runs < 3 {
		t.Errorf("sum %d after %d runs, %v; want 4 after 3 or more", sum, runs, err)
	}
}

func TestUnreachablePostgresIsSaidWithoutThePassword(t *testing.T) {
	_, err := sqldb.Open(t.Context(), sqldb.Config{URL: "postgres://forge:s3cret@127.0.0.1:1/forge", Room: "config"})
	if err == nil || !strings.HasPrefix(err.Error(), "connect to the database of room config: ") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v", err)
	}
	if !fault.Is(sqldb.Kind(err), fault.Unavailable) {
		t.Errorf("kind %v, want unavailable", fault.KindOf(sqldb.Kind(err)))
	}
}
