package gate

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/scheduler/store"
)

// Builds of three tiers come to two schedulers, stay, and leave; some of them are killed,
// and BuildKit ends those a while later.
func TestTiersNeverMeet(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const builds = 60
		tiers := []string{"merged", "pull", "fork"}
		w.here.every, w.there.every = 200*time.Millisecond, 200*time.Millisecond
		var running [3]atomic.Int64
		var all sync.WaitGroup
		together := atomic.Int64{}
		for n := range builds {
			all.Go(func() {
				mine, g := rand.IntN(3), []*Gate{w.here, w.there}[n%2]
				for range rand.IntN(50) {
					_ = w.rows(t) // they do not all come at once
				}
				a := w.arrival(tiers[mine])
				p, err := g.Enter(t.Context(), a)
				if err != nil {
					t.Error(err)
					return
				}
				if running[mine].Add(1) > 1 {
					together.Add(1)
				}
				for range 3 {
					for other := range running {
						if running[other].Load() > 0 && other != mine {
							t.Errorf("%s runs beside %s", a.Build, tiers[other])
						}
					}
					_ = w.rows(t)
				}
				ended := func() {
					running[mine].Add(-1)
					w.ends(a.Build)
				}
				switch n % 10 {
				case 3: // its scheduler hangs: the lease is over, and the commands run on
					p.stop()
					p.renewing.Wait()
					if err := w.lapse(t, a.Build); err != nil {
						t.Error(err)
					}
					for range 20 {
						_ = w.rows(t)
					}
					ended()
				case 6:
					p.Leave(t.Context(), false)
					for range 20 {
						_ = w.rows(t)
					}
					ended()
				default:
					ended()
					p.Leave(t.Context(), true)
				}
			})
		}
		all.Wait()
		t.Logf("%d came in beside one of their tier; %d leases were over", together.Load(), len(slices.Compact(slices.Sorted(slices.Values(w.asked)))))
		if left := slices.Collect(maps.Keys(w.runs)); len(left) > 0 {
			t.Errorf("%v run still", left)
		}
	})
}

// lapse has the lease of a build end.
func (w *world) lapse(t *testing.T, build string) error {
	t.Helper()
	return w.here.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		tx.Notify(store.GateTopic("one"))
		return tx.Exec(ctx, `UPDATE image_gate SET lease_time = 0 WHERE build = $1`, build)
	})
}
