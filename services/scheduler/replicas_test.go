package scheduler

import (
	"context"
	"fmt"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// replicaOf starts another scheduler on the same database, with the same engine and
// siblings.
func replicaOf(r *rig) *rig {
	other := newRig(r.t, r.open)
	other.engine, other.clock, other.deps = r.engine, r.clock, r.deps
	other.start()
	return other
}

// eachTwice runs a test with two replicas on PostgreSQL, and on SQLite with the
// one that there can be in place of both.
func eachTwice(t *testing.T, test func(t *testing.T, here, there *rig)) {
	each(t, func(t *testing.T, r *rig) {
		if r.service.deps.DB.Dialect == sqldb.SQLite {
			test(t, r, r)
			return
		}
		test(t, r, replicaOf(r))
	})
}

// heartbeat tells that the runner is there.
func (u *runner) heartbeat() { u.send(&schedulerv1.Report{}) }

func TestCancelAskedOfOneReplicaReachesARunnerOfAnother(t *testing.T) {
	eachTwice(t, func(t *testing.T, here, there *rig) {
		id := here.built(opened(1, "aaa"))
		u := there.attach(here.spec(id, 1).Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		if _, err := here.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id, Message: "no more"}); err != nil {
			t.Fatal(err)
		}
		if told := u.recv().GetCancel().GetMessage(); told != "no more" {
			t.Errorf("told %q", told)
		}
	})
}

func TestWhoWatchesAtOneReplicaSeesWhatRunsAtAnother(t *testing.T) {
	eachTwice(t, func(t *testing.T, here, there *rig) {
		id := here.built(opened(1, "aaa"))
		u := there.attach(here.spec(id, 1).Runner.Token)
		ctx, leave := context.WithTimeout(t.Context(), patience)
		defer leave()
		build, err := here.builds.WatchBuild(ctx, &schedulerv1.WatchBuildRequest{BuildId: id})
		if err != nil {
			t.Fatal(err)
		}
		log, err := here.builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: id, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		sees := func(what string, seen func(*schedulerv1.Build) bool) {
			t.Helper()
			for {
				message, err := build.Recv()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if seen(message.GetBuild()) {
					return
				}
			}
		}
		u.send(began(1, 1), printed(2, 1, "one\n"))
		sees("a step that runs", func(b *schedulerv1.Build) bool {
			return b.GetSteps()[0].GetState() == schedulerv1.Step_STATE_RUNNING
		})
		part, err := log.Recv()
		if err != nil || string(part.GetData()) != "one\n" {
			t.Fatalf("%q, %v", part.GetData(), err)
		}
		u.send(printed(3, 1, "two\n"), exited(4, 1, 1), over(5, schedulerv1.Ended_CAUSE_DONE))
		if rest := string(readLog(t, log, 4)); rest != "two\n" {
			t.Errorf("then %q", rest)
		}
		sees("its end", func(b *schedulerv1.Build) bool { return b.GetState() == schedulerv1.Build_STATE_FAILED })
	})
}

// heardNow waits until the runner of a build's first attempt is stored as heard.
func heardNow(ctx context.Context, r *rig, id string) {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		a, err := store.ReadAttempt(ctx, r.service.deps.DB.Read(), id, 1, "")
		if err == nil && !a.Contact.Equal(r.clock.Now()) {
			err = fmt.Errorf("heard %v ago", r.clock.Now().Sub(a.Contact))
		}
		return err
	})
}

func TestHeartbeatIsStoredThoughAnotherAttemptIsBeingChanged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var ids []string
		var runners []*runner
		for n := range int32(2) {
			id := r.built(opened(n+1, string('a'+n)))
			ids, runners = append(ids, id), append(runners, r.attach(r.spec(id, 1).Runner.Token))
		}
		r.clock.Advance(8 * time.Second)
		heard := func() {
			for _, u := range runners {
				u.heartbeat()
			}
		}
		if r.service.deps.DB.Dialect == sqldb.SQLite { // it has one writer, and nobody to wait for
			heard()
		} else {
			err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				if _, err := tx.Attempt(ctx, ids[0], 1); err != nil {
					return err
				}
				heard()
				heardNow(ctx, r, ids[1])
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		heardNow(t.Context(), r, ids[0])
		heardNow(t.Context(), r, ids[1])
		r.clock.Advance(9 * time.Second)
		r.engine.set(func(e *memoryEngine) { clear(e.containers) })
		r.sweep()
		for _, id := range ids { // as long as a runner takes to be heard again
			if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
				t.Errorf("%v: %s", b.GetState(), b.GetMessage())
			}
		}
	})
}

// Whoever waits hears of what changed. Should that news be lost, a heartbeat
// brings it.
func TestHeartbeatBringsNewsThatWereLost(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		silently := func(statement string) {
			t.Helper()
			err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.Exec(ctx, statement, id) })
			if err != nil {
				t.Fatal(err)
			}
		}
		silently(`UPDATE builds SET cancel_time = 1, cancel_message = 'no more' WHERE id = $1`)
		u.heartbeat()
		if told := u.recv().GetCancel().GetMessage(); told != "no more" {
			t.Errorf("told %q", told)
		}
		silently(`UPDATE attempts SET ended = TRUE WHERE build_id = $1`)
		u.heartbeat()
		if err := u.refused(); err == nil {
			t.Error("the runner of an attempt that has ended was not sent away")
		}
	})
}
