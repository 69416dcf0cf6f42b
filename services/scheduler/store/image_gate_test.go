package store

import (
	"context"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Where one process has the database, a lease that it finds at its start is a dead one's.
// What nobody has come for is forgotten in the end.
func TestPlacesAtTheGateOutliveNobodyForLong(t *testing.T) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		clock := kittest.NewClock(time.Now())
		s := New(open(), clock.Now, func(Queue) {})
		waits := GatePlace{BuildKit: "one", Build: "b", Tier: "fork", Lease: clock.Now().Add(time.Hour)}
		write := func(do func(ctx context.Context, tx *Tx) error) {
			t.Helper()
			if err := s.Write(t.Context(), do); err != nil {
				t.Fatal(err)
			}
		}
		write(func(ctx context.Context, tx *Tx) (err error) {
			if _, err = JoinGate(ctx, tx, GatePlace{BuildKit: "one", Build: "a", Tier: "merged", Lease: clock.Now().Add(time.Minute)}); err == nil {
				waits.Number, err = JoinGate(ctx, tx, waits)
			}
			return err
		})
		leases := func() (over int) {
			t.Helper()
			before, _, err := GateBefore(t.Context(), s, waits)
			if err != nil || len(before) != 1 || before[0].Build != "a" {
				t.Fatalf("before it: %v, %v", before, err)
			}
			if !before[0].Lease.After(clock.Now()) {
				over++
			}
			return over
		}
		if err := s.FreeLeases(t.Context()); err != nil {
			t.Fatal(err)
		}
		if over := leases(); (over == 1) != (s.DB.Dialect == sqldb.SQLite) {
			t.Errorf("after a start %d leases are over", over)
		}
		for _, want := range []int{0, 2, 0} {
			write(func(ctx context.Context, tx *Tx) error {
				n, err := RemoveGatePlaces(ctx, tx, clock.Now().Add(-time.Microsecond), 10)
				if n != want {
					t.Errorf("%d were forgotten, want %d", n, want)
				}
				return err
			})
			clock.Advance(2 * time.Hour)
		}
	})
}
