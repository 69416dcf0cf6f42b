package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// world is schedulers that share a database, and a BuildKit.
type world struct {
	clock       *kittest.Clock
	here, there *Gate // on SQLite of one process, as there is no other
	db          *sqldb.DB

	mu    sync.Mutex
	runs  map[string]bool // builds that BuildKit has not ended
	asked []string        // of BuildKit
	come  int
}

func onBoth(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	kittest.DBs(t, "scheduler", store.Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		w := &world{clock: kittest.NewClock(time.Now()), runs: map[string]bool{}, db: open()}
		w.here = w.gate(t, w.db)
		w.there = New(w.here.store, w.here.log)
		if w.db.Dialect == sqldb.Postgres {
			w.there = w.gate(t, open())
		}
		test(t, w)
	})
}

// gate is that of another scheduler.
func (w *world) gate(t *testing.T, db *sqldb.DB) *Gate {
	t.Helper()
	s := store.New(db, w.clock.Now, func(store.Queue) {})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var following sync.WaitGroup
	following.Go(func() { _ = s.FollowChanges(ctx, kittest.Log(t)) })
	t.Cleanup(func() {
		stop()
		following.Wait()
	})
	return New(s, kittest.Log(t))
}

// arrival is a build that BuildKit runs from now on.
func (w *world) arrival(tier string) Arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.come++
	build := tier + " " + strconv.Itoa(w.come)
	w.runs[build] = true
	return Arrival{
		BuildKit: "one", Build: build, Tier: tier, Waits: func() {}, End: func(error) {},
		Ended: func(_ context.Context, build string) (bool, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked = append(w.asked, build)
			return !w.runs[build], nil
		},
	}
}

// ends has BuildKit end a build.
func (w *world) ends(build string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.runs, build)
}

// comes has somebody come who neither looks nor renews by itself.
func (w *world) comes(t *testing.T, g *Gate, tier string) *Place {
	t.Helper()
	p := &Place{gate: g, of: w.arrival(tier), stop: func() {}}
	if _, err := p.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// looks reports whether somebody is inside, having looked twice: what is taken away at
// first opens the way to who looks again.
func (p *Place) looks(t *testing.T) bool {
	t.Helper()
	for range 2 {
		if p.standing().Inside {
			break
		}
		if _, err := p.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return p.standing().Inside
}

func want(t *testing.T, what string, all []*Place, want ...bool) {
	t.Helper()
	var got []bool
	for _, p := range all {
		got = append(got, p.looks(t))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v are inside, want %v", what, got, want)
	}
}

func TestOneTierIsLetInAtATimeInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		all := []*Place{w.comes(t, w.here, "merged"), w.comes(t, w.there, "merged"), w.comes(t, w.here, "fork"), w.comes(t, w.there, "fork"), w.comes(t, w.here, "merged")}
		want(t, "at first", all, true, true, false, false, false) // the last has come after a fork
		all[0].Leave(t.Context(), true)
		want(t, "one left", all, true, true, false, false, false)
		all[1].Leave(t.Context(), true)
		want(t, "both left", all, true, true, true, true, false)
		all[3].Leave(t.Context(), true)
		all[2].Leave(t.Context(), true)
		want(t, "the forks left", all, true, true, true, true, true)
		elsewhere := &Place{gate: w.there, of: w.arrival("fork"), stop: func() {}}
		elsewhere.of.BuildKit = "another"
		if inside, err := elsewhere.join(t.Context()); err != nil || !inside {
			t.Errorf("before another BuildKit: inside %v, %v", inside, err)
		}
	})
}

// Who waits is told at once, by whichever scheduler, and who gives up keeps nobody waiting.
func TestWhoWaitsIsLetInOnceItsTurnHasCome(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first, err := w.here.Enter(t.Context(), w.arrival("merged"))
		if err != nil {
			t.Fatal(err)
		}
		enter := func(ctx context.Context, g *Gate, tier string) (entered chan *Place) {
			a := w.arrival(tier)
			waits, entered := make(chan struct{}), make(chan *Place, 1)
			a.Waits = func() { close(waits) }
			go func() {
				p, err := g.Enter(ctx, a)
				if ctx.Err() == nil && err != nil || ctx.Err() != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", a.Build, err)
				}
				entered <- p
			}()
			select {
			case <-waits:
			case p := <-entered:
				t.Errorf("%s does not wait", a.Build)
				entered <- p
			}
			return entered
		}
		ctx, giveUp := context.WithCancel(t.Context())
		gaveUp := enter(ctx, w.there, "fork")
		next := enter(t.Context(), w.there, "merged")
		last := enter(t.Context(), w.there, "another fork")
		giveUp()
		if p := <-gaveUp; p != nil {
			t.Error("who gave up is inside")
		}
		(<-next).Leave(t.Context(), true)
		first.Leave(t.Context(), true)
		(<-last).Leave(t.Context(), true)
		if left := w.rows(t); len(left) > 0 {
			t.Errorf("%v are left", left)
		}
	})
}

// rows are the builds in the line.
func (w *world) rows(t *testing.T) []string {
	t.Helper()
	scan := func(row sqldb.Row) (build string, err error) { return build, row.Scan(&build) }
	builds, err := sqldb.Collect(t.Context(), w.db.Read(), scan, `SELECT build FROM image_gate ORDER BY number`)
	if err != nil {
		t.Fatal(err)
	}
	return builds
}

func TestThePlaceOfAKilledSchedulerIsTakenAway(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		dead, deadWaiting := w.comes(t, w.here, "merged"), w.comes(t, w.here, "fork")
		all := []*Place{w.comes(t, w.there, "merged"), w.comes(t, w.there, "environment")}
		want(t, "while it lives", all, false, false)
		w.clock.Advance(lease - time.Second)
		for _, p := range all {
			p.renew(t.Context())
		}
		want(t, "while its lease lasts", all, false, false)
		if len(w.asked) > 0 {
			t.Errorf("BuildKit was asked of %q though all are heard of", w.asked)
		}
		w.clock.Advance(time.Second)
		want(t, "its commands run on", all, true, false) // the fork that waited alone kept the first
		w.ends(dead.of.Build)
		w.asked = nil
		want(t, "BuildKit has ended them", all, true, false)
		all[0].Leave(t.Context(), true)
		want(t, "the other one left", all, true, true)
		if slices.Contains(w.asked, deadWaiting.of.Build) {
			t.Error("BuildKit was asked of who has only waited")
		}
	})
}

// A process that hung finds its place taken, and a build that is inside all the same ends.
func TestWhoHungBeginsAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first := w.comes(t, w.here, "merged")
		hung, next := w.comes(t, w.here, "fork"), w.comes(t, w.there, "merged")
		want(t, "at first", []*Place{hung, next}, false, false)
		w.clock.Advance(lease)
		first.renew(t.Context())
		next.renew(t.Context())
		want(t, "one hangs", []*Place{next}, true)
		want(t, "it comes after who has passed it", []*Place{hung}, false)
		if number := hung.standing().Number; number <= next.standing().Number {
			t.Errorf("it has place %d still", number)
		}
		var ended error
		first.of.End = func(cause error) { ended = cause }
		w.ends(first.of.Build)
		w.clock.Advance(lease)
		next.renew(t.Context())
		next.Leave(t.Context(), true)
		want(t, "the first is taken for dead", []*Place{hung}, true)
		first.renew(t.Context())
		if !errors.Is(ended, errTaken) {
			t.Errorf("it goes on: %v", ended)
		}
	})
}

// Who left before BuildKit has ended the build keeps others waiting until it has.
func TestWhoLeavesEarlyIsWaitedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		early, next := w.comes(t, w.here, "merged"), w.comes(t, w.there, "fork")
		early.Leave(t.Context(), false)
		want(t, "it runs", []*Place{next}, false)
		w.ends(early.of.Build)
		want(t, "it has ended", []*Place{next}, true)
		if slices.Contains(w.rows(t), early.of.Build) {
			t.Error("its place is there still")
		}
	})
}

// A scheduler that does not reach its database ends its builds while they hold their
// places.
func TestABuildEndsWhoseTurnCannotBeRenewed(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		cutOff, cut := context.WithCancel(t.Context())
		p, next := w.comes(t, w.here, "merged"), w.comes(t, w.there, "fork")
		var ended error
		p.of.End = func(cause error) { ended = cause }
		w.clock.Advance(endAfter)
		p.renew(t.Context())
		if ended != nil {
			t.Fatalf("it was renewed late, and nobody has taken it: %v", ended)
		}
		p.gate = &Gate{store: store.New(closed(t), w.clock.Now, func(store.Queue) {}), log: kittest.Log(t), every: every}
		w.clock.Advance(endAfter - 1)
		p.renew(t.Context())
		if ended != nil {
			t.Errorf("it ends at once: %v", ended)
		}
		w.clock.Advance(1)
		p.renew(t.Context())
		if !errors.Is(ended, errLate) {
			t.Errorf("it goes on: %v", ended)
		}
		next.renew(t.Context())
		want(t, "its lease lasts", []*Place{next}, false)
		if len(w.asked) > 0 {
			t.Error("its lease is over already")
		}
		cut()
		ended = nil
		p.renew(cutOff)
		if ended != nil {
			t.Errorf("it was leaving: %v", ended)
		}
	})
}

// closed is a database that answers nothing.
func closed(t *testing.T) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: kittest.SQLiteDir(t, "scheduler", store.Migrations()), Room: "scheduler", Migrations: store.Migrations(), Log: kittest.Log(t)})
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// Who is inside renews by itself, for as long as it takes.
func TestAPlaceIsRenewedUntilItIsLeft(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.here.every = 100 * time.Millisecond
		p, err := w.here.Enter(t.Context(), w.arrival("merged"))
		if err != nil {
			t.Fatal(err)
		}
		next := w.comes(t, w.there, "fork")
		for range 3 {
			w.clock.Advance(lease - 1)
			kittest.Eventually(t, patience, func() error {
				if before, _, err := store.GateBefore(t.Context(), w.there.store, next.standing()); err != nil || len(before) != 1 || before[0].Lease.Before(w.clock.Now().Add(lease).Truncate(time.Microsecond)) {
					return fmt.Errorf("before it: %v, %w", before, err)
				}
				return nil
			})
		}
		p.Leave(t.Context(), true)
		want(t, "it left", []*Place{next}, true)
	})
}
