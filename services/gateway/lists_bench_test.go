package gateway

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// With 100,000 deliveries all lists: under 30 ms at the 95th percentile.
func BenchmarkDeliveryLists(b *testing.B) {
	measure := func(b *testing.B, db *sqldb.DB, numbers, random string) {
		b.Helper()
		err := db.Write(b.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO deliveries (guid, event, headers, size, traceparent, received, action, repository, pull_request, sha)
				SELECT 'd' || i, CASE i % 4 WHEN 0 THEN 'push' WHEN 1 THEN 'pull_request' WHEN 2 THEN 'check_run' ELSE CASE i % 9999 WHEN 0 THEN 'release' ELSE 'issue_comment' END END, '{}', 24000, '', 1700000000000000 + i * CAST(20000000 AS BIGINT), 'opened',
					'acme/web' || (CASE WHEN i % 5 < 2 THEN 0 ELSE i % 50 END), i / 20, `+random+` FROM `+numbers)
			if err == nil {
				_, err = tx.ExecContext(ctx, "INSERT INTO forwards (delivery, receiver, due, state) SELECT id, 'scheduler', received, CASE id % 9000 WHEN 0 THEN 3 ELSE 2 END FROM deliveries")
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		if db.Dialect != sqldb.SQLite {
			kittest.Autovacuum(b, db.Read(), "gateway")
		}
		conn, err := rpc.NewPipe().Dial("gateway", nil)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		service, err := New(Deps{DB: db, Webhook: Webhook{Secrets: []string{secret}, AllowedIPs: []string{"any"}}, Receivers: map[string]grpc.ClientConnInterface{"config": conn, "scheduler": conn, "reporter": conn}})
		if err != nil {
			b.Fatal(err)
		}
		const repository = "acme/web0"
		lists := map[string]*gatewayv1.ListDeliveriesRequest{
			"all": {}, "event": {Event: "push"}, "rare event": {Event: "release"}, "repository": {Repository: repository}, "kept": {State: gatewayv1.Delivery_STATE_KEPT},
			"pending": {State: gatewayv1.Delivery_STATE_PENDING}, "repository, event": {Repository: repository, Event: "push"}, "repository, rare event": {Repository: repository, Event: "release"},
			"repository, kept": {Repository: "acme/web17", State: gatewayv1.Delivery_STATE_KEPT}, "event, kept": {Event: "push", State: gatewayv1.Delivery_STATE_KEPT},
			"pull request": {Repository: repository, PullRequest: 77}, "commit": {Sha: fmt.Sprintf("%040d", 4711)},
		}
		took := map[string][]time.Duration{}
		for b.Loop() {
			for range 20 {
				for name, req := range lists {
					begin := time.Now()
					if _, err := service.ListDeliveries(b.Context(), req); err != nil {
						b.Fatal(name, err)
					}
					took[name] = append(took[name], time.Since(begin))
				}
			}
		}
		var everything []time.Duration
		var slowest time.Duration
		for name, all := range took {
			slices.Sort(all)
			b.Logf("%-30s p50 %6.2f ms, p95 %6.2f ms", name, all[len(all)/2].Seconds()*1000, all[len(all)*95/100].Seconds()*1000)
			slowest, everything = max(slowest, all[len(all)/2]), append(everything, all...)
		}
		slices.Sort(everything)
		b.ReportMetric(everything[len(everything)*95/100].Seconds()*1000, "lists-p95-ms")
		b.ReportMetric(slowest.Seconds()*1000, "slowest-list-p50-ms")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("sqlite", func(b *testing.B) {
		measure(b, open(b), "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n) n", "printf('%040d', i)")
	})
	b.Run("postgres", func(b *testing.B) {
		kittest.Require(b, "postgres")
		db, err := sqldb.Open(b.Context(), sqldb.Config{URL: kittest.PostgresURL(b), Room: "gateway", Migrations: Migrations()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		measure(b, db, "generate_series(1, 100000) n(i)", "lpad(i::text, 40, '0')")
	})
}
