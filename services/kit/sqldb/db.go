package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Dialect is the kind of database, for the few statements that differ.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// SkipLocked is the clause that ends the SELECT of a claim: rows another
// replica is claiming are passed over. SQLite has one writer and needs none.
func (d Dialect) SkipLocked() string {
	if d == Postgres {
		return " FOR UPDATE SKIP LOCKED"
	}
	return ""
}

// ForUpdate is the clause that ends the SELECT of rows that are about to be
// changed: who wants them at the same time waits. SQLite has one writer and needs
// none.
func (d Dialect) ForUpdate() string {
	if d == Postgres {
		return " FOR UPDATE"
	}
	return ""
}

// Config says which database to open.
type Config struct {
	// URL is empty for SQLite in Dir, "sqlite:<directory>" for SQLite elsewhere,
	// or "postgres://…".
	URL string
	// Dir holds the SQLite file <Room>.db and is made with mode 0700 if absent.
	Dir string
	// Room names the SQLite file or the PostgreSQL schema: lower-case letters,
	// digits and underscores.
	Room string
	// Migrations holds the goose files; nil for none.
	Migrations fs.FS
	// Log is told of migrations; nil for silence.
	Log *slog.Logger
}

// DB is the open database of a room.
type DB struct {
	Dialect Dialect

	room        string
	migrations  fs.FS
	write, read *sql.DB
	turns       turns // of those who write to a SQLite file
	stop        func()
	statements  statements // of transactions
	reads       statements // outside of them
	failures    failures
}

// Open opens the room's database, creates what is missing and migrates it. A
// database that a newer Forge has migrated is left as it is, and refused where its
// migrations do not let this one run on it.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(cfg.Room) {
		return nil, fmt.Errorf("database room %q: use lower-case letters, digits and underscores", cfg.Room)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch scheme, rest, _ := strings.Cut(cfg.URL, ":"); scheme {
	case "":
		return openSQLite(ctx, cfg, cfg.Dir)
	case "sqlite":
		return openSQLite(ctx, cfg, rest)
	case "postgres", "postgresql":
		return openPostgres(ctx, cfg)
	default:
		return nil, fmt.Errorf("database URL of room %s: unknown scheme %q; use postgres://… or sqlite:<directory>", cfg.Room, scheme)
	}
}

// Close ends all connections. Transactions still running fail.
func (db *DB) Close() error {
	if db.stop != nil {
		db.stop()
	}
	if db.read == db.write {
		return db.write.Close()
	}
	// The writer goes last: closing it folds the write-ahead log into the file.
	return errors.Join(db.read.Close(), db.write.Close())
}

// Answers reports whether the database answers. Its error says no more to a caller.
func (db *DB) Answers(ctx context.Context) error {
	for _, pool := range []*sql.DB{db.read, db.write} {
		if err := pool.PingContext(ctx); err != nil {
			return Kind(err)
		}
	}
	return nil
}

// Read is the pool for reads outside a transaction. On SQLite it refuses
// writes, and sees what was committed before the statement began.
func (db *DB) Read() *sql.DB { return db.read }

// PostgreSQL asks a transaction to be run again with one of these.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

// Write runs do in a transaction and commits it, or rolls it back when do
// returns an error or panics. On SQLite there is one writer: a Write inside do
// would wait for itself. On PostgreSQL do runs again after a deadlock, so it must
// have no effect outside tx. The error is do's own, or names the step that broke;
// Kind gives it a kind.
func (db *DB) Write(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	const tries = 5
	defer db.compile(context.WithoutCancel(ctx))
	for try := 1; ; try++ {
		err := db.attempt(ctx, do)
		db.failures.count(err)
		var pg *pgconn.PgError
		if try == tries || !errors.As(err, &pg) || (pg.Code != serializationFailure && pg.Code != deadlockDetected) {
			return err
		}
		pause := time.NewTimer(time.Duration(try) * time.Duration(rand.Int64N(int64(20*time.Millisecond)))) //nolint:gosec // spreads tries, hides nothing
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

func (db *DB) attempt(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	over, err := db.turns.take(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer over()
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	// After a commit this does nothing; its error says no more than the first.
	defer func() { _ = tx.Rollback() }()
	if err := do(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// Micros is how a moment is stored: microseconds since 1970, UTC; 0 for the
// zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros, in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
