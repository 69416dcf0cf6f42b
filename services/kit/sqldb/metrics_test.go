package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMetricsSayHowADatabaseDoes(t *testing.T) {
	kittest.DBs(t, "builds", builds(), func(t *testing.T, open func() *sqldb.DB) {
		db, reader := open(), sdkmetric.NewManualReader()
		if err := db.Observe(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), "builds", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		measured := func(name string, attributes ...string) float64 {
			t.Helper()
			return kittest.Metric(t, reader, name, attributes...)
		}
		if up, size := measured("forge.database.up", "room=builds"), measured("forge.database.size"); up != 1 || size < 4096 {
			t.Errorf("up %v, %v bytes", up, size)
		}
		if most, idle := measured("db.client.connection.max"), measured("db.client.connection.count", "db.client.connection.state=idle"); most < 1 || idle < 1 || idle > most {
			t.Errorf("%v connections are idle of %v", idle, most)
		}

		// What is no fault of the database's is not counted.
		for range 2 {
			_ = insert(t.Context(), db, "one") // there already, the second time
		}
		for _, err := range []error{errors.New("a bug"), sql.ErrNoRows, fault.New(fault.Unavailable, "another room is away"), context.Canceled} {
			_ = db.Write(t.Context(), func(context.Context, *sql.Tx) error { return err })
		}
		if n := measured("forge.database.errors"); n != 0 {
			t.Errorf("%v errors are counted", n)
		}
		err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE nothing SET nobody = 1")
			return err
		})
		if n := measured("forge.database.errors", "kind=refused"); err == nil || n != 1 {
			t.Errorf("%v errors are counted after %v", n, err)
		}

		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if up := measured("forge.database.up"); up != 0 {
			t.Errorf("a database that was closed is up: %v", up)
		}
		if size, found := kittest.FindMetric(t, reader, "forge.database.size"); found {
			t.Errorf("its size is %v", size)
		}
	})
}
