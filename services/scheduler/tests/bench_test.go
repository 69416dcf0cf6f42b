package tests

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

const (
	benchTests = 10_000
	benchRuns  = 100
)

// A million results are stored, 100 attempts of 10,000 tests, of which one in a hundred
// has failed: ms/page is what the page of a build asks for, ms/slow the slowest tests,
// ms/flaky the flaky ones, ms/history that of one test; each the slowest of 20. B/result
// is what the database has for each, its names and indexes included, and s/100k how long
// it takes to store 100,000 results as they come from a runner.
func BenchmarkMillionResults(b *testing.B) {
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			cfg := sqldb.Config{Dir: b.TempDir(), Room: "scheduler", Migrations: store.Migrations()}
			if name == "postgres" {
				cfg.URL = kittest.PostgresURL(b)
			}
			db, err := sqldb.Open(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			s := store.New(db, time.Now, func(store.Queue) {})
			var stored time.Duration
			var last string
			for n := range benchRuns {
				begin := time.Now()
				last = storeRun(b, s, n)
				stored += time.Since(begin)
			}
			service := New(s)
			asks := map[string]func() (int, error){
				"page": func() (int, error) {
					answer, err := service.ListTests(b.Context(), &schedulerv1.ListTestsRequest{
						BuildId: last, States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED},
					})
					return len(answer.GetTests()), err
				},
				"slow": func() (int, error) {
					answer, err := service.ListTests(b.Context(), &schedulerv1.ListTestsRequest{BuildId: last, Order: schedulerv1.ListTestsRequest_ORDER_SLOWEST})
					return len(answer.GetTests()), err
				},
				"flaky": func() (int, error) {
					answer, err := service.ListFlakyTests(b.Context(), &schedulerv1.ListFlakyTestsRequest{Repository: "acme/shop"})
					return len(answer.GetTests()), err
				},
				"history": func() (int, error) {
					answer, err := service.ListTestHistory(b.Context(), &schedulerv1.ListTestHistoryRequest{Repository: "acme/shop", Name: "total of 77 is right"})
					return len(answer.GetTests()), err
				},
			}
			slowest := map[string]time.Duration{}
			for b.Loop() {
				for what, ask := range asks {
					for range 20 {
						begin := time.Now()
						if found, err := ask(); err != nil || found != 50 {
							b.Fatalf("%s: %d, %v", what, found, err)
						}
						slowest[what] = max(slowest[what], time.Since(begin))
					}
				}
			}
			b.ReportMetric(stored.Seconds()*100_000/benchRuns/benchTests, "s/100k")
			b.ReportMetric(bytesOf(b, db, cfg)/benchRuns/benchTests, "B/result")
			for what, took := range slowest {
				b.ReportMetric(float64(took.Microseconds())/1000, "ms/"+what)
			}
		})
	}
}

// storeRun stores one build with what its tests report: of two in turn of one commit
// each, so that some of them are flaky. Every tenth is of a pull request.
func storeRun(b *testing.B, s *store.Store, n int) string {
	b.Helper()
	build := &store.Build{Config: &configv1.BuildConfig{Image: "busybox"}, Build: &schedulerv1.Build{
		Id: fmt.Sprintf("build%021d", n), Repository: &eventv1.Repository{Id: 7, Owner: "acme", Name: "shop", DefaultBranch: "main"},
		Action: schedulerv1.Build_ACTION_PUSH, DeliveryId: "d", Ref: "refs/heads/main", Sha: fmt.Sprintf("%040d", n/2), Context: "forge/push",
		State: schedulerv1.Build_STATE_FAILED, EndTime: timestamppb.Now(), Attempt: 1,
	}}
	if n%10 == 9 {
		build.Action, build.PullRequest, build.BaseRef, build.Ref, build.Context = schedulerv1.Build_ACTION_TEST, int32(n), "main", "refs/pull/1/head", "forge/test"
	}
	write := func(do func(ctx context.Context, t *store.Tx) error) {
		if err := s.Write(b.Context(), do); err != nil {
			b.Fatal(err)
		}
	}
	write(func(ctx context.Context, t *store.Tx) error { return t.AddBuild(ctx, build) })
	const once = 2000
	for from := 0; from < benchTests; from += once {
		write(func(ctx context.Context, t *store.Tx) error {
			report := &schedulerv1.TestReport{}
			for i := from; i < from+once; i++ {
				test := &schedulerv1.Test{
					Suite: "shop", Class: fmt.Sprintf("com.acme.shop.CartTest%d", i/50), Name: fmt.Sprintf("total of %d is right", i),
					State: schedulerv1.Test_STATE_PASSED, Duration: durationpb.New(time.Duration(i%100) * time.Millisecond),
				}
				if (i+n)%100 == 0 {
					test.State, test.File, test.Line, test.Message = schedulerv1.Test_STATE_FAILED, "cart_test.go", 12, "got 1, want 2"
				}
				report.Tests = append(report.Tests, test)
			}
			batch := &Batch{}
			batch.Add(report)
			return batch.Store(ctx, t, trigger.Policy{}, build, 1)
		})
	}
	write(func(ctx context.Context, t *store.Tx) error { return Settle(ctx, t, build) })
	return build.GetId()
}

// bytesOf is how large a database is.
func bytesOf(b *testing.B, db *sqldb.DB, cfg sqldb.Config) (size float64) {
	b.Helper()
	if cfg.URL == "" {
		for _, name := range []string{"scheduler.db", "scheduler.db-wal"} {
			if info, err := os.Stat(cfg.Dir + "/" + name); err == nil && name == "scheduler.db" {
				size += float64(info.Size())
			}
		}
		return size
	}
	const query = `SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.relname LIKE 'test\_%' AND c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`
	if err := db.Read().QueryRowContext(b.Context(), query).Scan(&size); err != nil {
		b.Fatal(err)
	}
	return size
}
