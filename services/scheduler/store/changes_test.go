package store

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// replicas are two stores of one database on PostgreSQL.
func replicas(t *testing.T, connect func(url string) string) (here, there *Store) {
	t.Helper()
	kittest.Require(t, "postgres")
	database := kittest.Postgres(t, "scheduler", Migrations())
	return openStore(t, database), openStore(t, connect(database))
}

func directly(url string) string { return url }

func openStore(t *testing.T, url string) *Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Room: "scheduler", Migrations: Migrations(), Log: kittest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return New(db, time.Now, func(Queue) {})
}

// change commits that topics have changed.
func change(t *testing.T, s *Store, topics ...string) {
	t.Helper()
	err := s.Write(t.Context(), func(_ context.Context, tx *Tx) error { tx.Notify(topics...); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// waiter waits for several topics, and says which of them it was told of.
type waiter map[string]<-chan struct{}

func wait(t *testing.T, s *Store, topics ...string) waiter {
	w := waiter{}
	for _, topic := range topics {
		changed, leave := s.Notifier.Subscribe(topic)
		t.Cleanup(leave)
		w[topic] = changed
	}
	return w
}

func (w waiter) told() []string {
	var told []string
	for topic, changed := range w {
		select {
		case <-changed:
			told = append(told, topic)
		default:
		}
	}
	slices.Sort(told)
	return told
}

// looks has a follower look once, and says who was told.
func (w waiter) looks(t *testing.T, f *follower) []string {
	t.Helper()
	if err := f.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.told()
}

func (w waiter) expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: told of %q, want %q", what, got, want)
	}
}

func TestChangeReachesOtherReplicasOnce(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T, url string) string{
		"directly": func(_ *testing.T, url string) string { return url },
		"through a pooler": func(t *testing.T, url string) string {
			kittest.Require(t, "pgbouncer")
			return kittest.PgBouncer(t, url)
		},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := replicas(t, func(url string) string { return connect(t, url) })
			w, f := wait(t, there, "a", "b", "c"), &follower{store: there}
			w.expect(t, "the first look", w.looks(t, f), "a", "b", "c")
			w.expect(t, "nothing changed", w.looks(t, f))
			change(t, here, "a", "b", "a")
			w.expect(t, "a change", w.looks(t, f), "a", "b")
			w.expect(t, "the same change", w.looks(t, f))
			change(t, there, "c")
			w.expect(t, "a change made here, before a look", w.told(), "c")
		})
	}
}

// Of two transactions the one that began first, and has the lower number, is
// committed last: a reader that goes by numbers would miss it.
func TestChangesAreReadWhateverTheOrderOfTheirCommits(t *testing.T) {
	here, there := replicas(t, directly)
	w, f := wait(t, there, "first", "second", "undone"), &follower{store: there}
	w.looks(t, f)
	begun, commit := make(chan struct{}), make(chan struct{})
	done := make(chan error, 2)
	for topic, end := range map[string]error{"first": nil, "undone": context.Canceled} {
		go func() {
			done <- here.Write(context.WithoutCancel(t.Context()), func(ctx context.Context, tx *Tx) error {
				err := tx.writeChanges(ctx, []string{topic})
				begun <- struct{}{}
				<-commit
				if err == nil {
					err = end
				}
				return err
			})
		}()
		<-begun
	}
	change(t, here, "second")
	w.expect(t, "the others are not committed", w.looks(t, f), "second")
	close(commit)
	if failed := []error{<-done, <-done}; (failed[0] == nil) == (failed[1] == nil) {
		t.Errorf("one of two is to be committed: %v", failed)
	}
	w.expect(t, "the first is committed last", w.looks(t, f), "first")
	w.expect(t, "nothing more", w.looks(t, f))
}

func TestChangesAreReadOnceTheConnectionIsBack(t *testing.T) {
	here, there := replicas(t, func(database string) string {
		named, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		query := named.Query()
		query.Set("application_name", "cut off")
		named.RawQuery = query.Encode()
		return named.String()
	})
	w, f := wait(t, there, "a"), &follower{store: there}
	w.looks(t, f)
	change(t, here, "a")
	cut := func() {
		t.Helper()
		if _, err := here.DB.Read().ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'cut off' AND datname = current_database()`); err != nil {
			t.Fatal(err)
		}
	}
	// A statement may fail, or the pool may have noticed before: in any case the change is told in the end, and once.
	cut()
	told := 0
	kittest.Eventually(t, time.Minute, func() error {
		err := f.look(t.Context())
		told += len(w.told())
		return err
	})
	if told != 1 {
		t.Errorf("told %d times of one change", told)
	}
	w.expect(t, "nothing more", w.looks(t, f))
}

// Who was away for longer than changes are kept, or meets a server where
// transactions are numbered anew, takes everything for changed.
func TestWhoMayHaveMissedAChangeLooksAtEverything(t *testing.T) {
	_, there := replicas(t, directly)
	w, f := wait(t, there, "a"), &follower{store: there}
	w.looks(t, f)
	f.last.time -= (changesKept/2 + time.Second).Microseconds()
	w.expect(t, "long away", w.looks(t, f), "a")
	w.expect(t, "just been there", w.looks(t, f))
	f.last.name.String = "900000000000:900000000001:"
	w.expect(t, "another server", w.looks(t, f), "a")
	w.expect(t, "the same server", w.looks(t, f))
}

func TestWhereNobodyWaitsNothingIsAsked(t *testing.T) {
	here, there := replicas(t, directly)
	f := &follower{store: there}
	if err := f.look(t.Context()); err != nil || f.last.name.Valid {
		t.Errorf("looked, though nobody waits: %v, %v", f.last, err)
	}
	changed, leave := there.Notifier.Subscribe("a")
	if err := f.look(t.Context()); err != nil || len(changed) != 1 {
		t.Errorf("what changed between a first glance and the first look is lost: %v", err)
	}
	leave()
	change(t, here, "b")
	if err := f.look(t.Context()); err != nil || f.last.name.Valid {
		t.Errorf("looked, though nobody waits any more: %v, %v", f.last, err)
	}
}

func TestOldChangesArePruned(t *testing.T) {
	here, there := replicas(t, directly)
	change(t, here, "old")
	if _, err := here.DB.Read().ExecContext(t.Context(), `UPDATE changes SET written_time = written_time - $1`, (changesKept + time.Minute).Microseconds()); err != nil {
		t.Fatal(err)
	}
	change(t, here, "new")
	if err := there.pruneChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left string
	err := here.DB.Read().QueryRowContext(t.Context(), `SELECT string_agg(topic, ',') FROM changes`).Scan(&left)
	if err != nil || left != "new" {
		t.Errorf("%q is left, %v", left, err)
	}
}

// On either database who waits is told, with the loop at work; a loop ends with
// its context.
func TestWhoWaitsIsToldOnEitherDatabase(t *testing.T) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		here := New(open(), time.Now, func(Queue) {})
		there := here // SQLite has one process
		if here.DB.Dialect == sqldb.Postgres {
			there = New(open(), time.Now, func(Queue) {})
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- there.FollowChanges(ctx, slog.New(slog.DiscardHandler)) }()
		changed, leave := there.Notifier.Subscribe("a")
		defer leave()
		for range 3 {
			change(t, here, "a")
			<-changed
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOneReplicaSweepsAtATime(t *testing.T) {
	here, there := replicas(t, directly)
	now := time.Now()
	clock := func() time.Time { return now }
	here.Now, there.Now = clock, clock
	turns := func(want ...bool) {
		t.Helper()
		for n, s := range []*Store{here, there} {
			mine, err := s.ClaimSweep(t.Context(), time.Second)
			if err != nil || mine != want[n] {
				t.Errorf("replica %d: its turn %v, want %v, %v", n, mine, want[n], err)
			}
		}
	}
	turns(true, false)
	turns(false, false)
	now = now.Add(time.Second) // the first has died
	if mine, err := there.ClaimSweep(t.Context(), time.Second); !mine || err != nil {
		t.Errorf("the turn of who died was not taken over: %v", err)
	}
	there.Now = func() time.Time { return now.Add(time.Hour) } // a clock that is wrong
	turns(false, true)
	there.Now = clock
	turns(true, false)
}
