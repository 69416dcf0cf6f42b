package image_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/image"
	"github.com/forge-ci/forge/services/scheduler/image/gate"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Two schedulers share a BuildKit. One takes every lease for over, as if the other hung:
// what BuildKit says counts.
func TestACommandIsWaitedForWhileBuildKitRunsIt(t *testing.T) {
	onBoth(t, aCommandIsWaitedForWhileBuildKitRunsIt)
}

func aCommandIsWaitedForWhileBuildKitRunsIt(t *testing.T, r *rig) {
	t.Helper()
	dir := kittest.SQLiteDir(t, "scheduler", store.Migrations())
	rows := newStore(t, dir, func() time.Time { return time.Now().Add(time.Hour) })
	late := func(q *image.Request) { q.Tier, q.Gate = "1/fork/7", gate.New(rows, kittest.Log(t)) }
	r.gate = gate.New(newStore(t, dir, time.Now), kittest.Log(t))
	base := r.registry.base(t, "base:1")
	began, ended := &marked{mark: "has begun", seen: make(chan struct{})}, make(chan error, 1)
	go func() {
		_, err := r.builder.Build(t.Context(), r.request(), workspace{"Dockerfile": "FROM " + base + "\nRUN echo has begun; sleep 3\n"}.on(t), began)
		ended <- err
	}()
	<-began.seen
	var buildkit string
	if err := rows.DB.Read().QueryRowContext(t.Context(), `SELECT buildkit FROM image_gate`).Scan(&buildkit); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if _, err := r.builder.Build(t.Context(), r.request(late), workspace{"Dockerfile": "FROM " + base + "\nRUN echo runs, too\n"}.on(t), &log); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(log.String(), "it waits for the image of another build") {
			t.Errorf("%v, %s", err, &log)
		}
	default:
		t.Error("the fork's has run before the other had ended")
	}

	// A scheduler was killed, and BuildKit has forgotten its build.
	err := rows.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.Exec(ctx, `INSERT INTO image_gate (number, buildkit, build, tier, inside, lease_time) VALUES (0, $1, 'killed', '1/merged', TRUE, 1)`, buildkit)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.build(t, r.request(late), workspace{"Dockerfile": "FROM " + base + "\nRUN echo runs again\n"})
	var left int
	if err := rows.DB.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM image_gate`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d are left at the gate, %v", left, err)
	}
}

// A scheduler that does not reach its database stops what it runs on BuildKit, which
// others may take for ended later.
func TestACommandEndsWhoseTurnIsNotRenewed(t *testing.T) {
	r := newRig(t)
	clock := kittest.NewClock(time.Now())
	rows := newStore(t, kittest.SQLiteDir(t, "scheduler", store.Migrations()), clock.Now)
	r.gate = gate.New(rows, kittest.Log(t))
	log := &watched{text: "it runs", seen: func() {
		if err := rows.DB.Close(); err != nil {
			t.Error(err)
		}
		clock.Advance(time.Minute)
	}}
	files := workspace{"Dockerfile": "FROM " + r.registry.base(t, "base:1") + "\nRUN echo it runs && sleep 3600\n"}.on(t)
	_, err := r.builder.Build(t.Context(), r.request(), files, log)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "could not tell its database in time") {
		t.Errorf("ended with %v", err)
	}
}
