package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"modernc.org/sqlite"

	"github.com/forge-ci/forge/services/kit/fault"
)

// measureWithin bounds what a scrape waits for a database.
const measureWithin = 2 * time.Second

// failures are transactions that the database broke, by how, since the start.
type failures struct{ unavailable, refused atomic.Int64 }

// count takes note of an error that is the database's own. That nothing was found, that
// a row is there already, or that the caller gave up is none.
func (f *failures) count(err error) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, sql.ErrNoRows) {
		return
	}
	switch kind := fault.KindOf(Kind(err)); {
	case kind == fault.Unavailable && ofDatabase(err):
		f.unavailable.Add(1)
	case kind == fault.Internal && ofDatabase(err):
		f.refused.Add(1)
	}
}

// ofDatabase reports whether the driver has said err, and not what was done with rows.
func ofDatabase(err error) bool {
	_, fromSQLite := errors.AsType[*sqlite.Error](err)
	_, fromPostgres := errors.AsType[*pgconn.PgError](err)
	return fromSQLite || fromPostgres || told(err) != nil
}

// Observe has an operator see how the room's database does: whether it answers, its
// connections, what it broke, and its size.
func (db *DB) Observe(provider metric.MeterProvider, room string, log *slog.Logger) error {
	meter := provider.Meter("forge/sqldb")
	var errs []error
	gauge := func(name, unit, description string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	up := gauge("forge.database.up", "", "Whether the database of a room answers: 1, or 0.")
	size := gauge("forge.database.size", "By", "How large the database is; of PostgreSQL, with all of its rooms.")
	most, err := meter.Int64ObservableUpDownCounter("db.client.connection.max", metric.WithUnit("{connection}"),
		metric.WithDescription("The maximum number of open connections allowed."))
	errs = append(errs, err)
	connections, err := meter.Int64ObservableUpDownCounter("db.client.connection.count", metric.WithUnit("{connection}"),
		metric.WithDescription("The number of connections that are currently in state described by the state attribute."))
	errs = append(errs, err)
	waits, err := meter.Float64ObservableCounter("forge.database.connection.waited", metric.WithUnit("s"),
		metric.WithDescription("How long callers have waited for a connection, all together."))
	errs = append(errs, err)
	broken, err := meter.Int64ObservableCounter("forge.database.errors",
		metric.WithDescription("Transactions that the database broke, by kind: unavailable, refused."))
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	of := attribute.String("room", room)
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		for name, pool := range db.pools() {
			stats, of := pool.Stats(), attribute.String("db.client.connection.pool.name", room+" "+name)
			o.ObserveInt64(most, int64(stats.MaxOpenConnections), metric.WithAttributes(of))
			o.ObserveInt64(connections, int64(stats.InUse), metric.WithAttributes(of, attribute.String("db.client.connection.state", "used")))
			o.ObserveInt64(connections, int64(stats.Idle), metric.WithAttributes(of, attribute.String("db.client.connection.state", "idle")))
			waited := stats.WaitDuration
			if pool == db.write {
				waited += time.Duration(db.turns.waited.Load())
			}
			o.ObserveFloat64(waits, waited.Seconds(), metric.WithAttributes(of))
		}
		o.ObserveInt64(broken, db.failures.unavailable.Load(), metric.WithAttributes(of, attribute.String("kind", "unavailable")))
		o.ObserveInt64(broken, db.failures.refused.Load(), metric.WithAttributes(of, attribute.String("kind", "refused")))

		ctx, cancel := context.WithTimeout(ctx, measureWithin)
		defer cancel()
		answers := int64(1)
		bytes, err := db.size(ctx)
		if err != nil {
			answers = 0
			log.WarnContext(ctx, "the database does not say its size", "room", room, "error", err)
		} else {
			o.ObserveInt64(size, bytes, metric.WithAttributes(of))
		}
		o.ObserveInt64(up, answers, metric.WithAttributes(of))
		return nil
	}, up, size, most, connections, waits, broken)
	return err
}

// pools are those of the database by their names.
func (db *DB) pools() map[string]*sql.DB {
	if db.read == db.write {
		return map[string]*sql.DB{"all": db.read}
	}
	return map[string]*sql.DB{"read": db.read, "write": db.write}
}

// size is how many bytes the database takes.
func (db *DB) size(ctx context.Context) (bytes int64, err error) {
	query := `SELECT pg_database_size(current_database())`
	if db.Dialect == SQLite {
		query = `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	}
	return bytes, db.read.QueryRowContext(ctx, query).Scan(&bytes)
}
