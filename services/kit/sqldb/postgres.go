package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	connections     = 16
	idleConnections = 4
	// A connection is renewed now and then so that a fail-over or a new replica
	// behind one address is noticed.
	connectionLife = 30 * time.Minute
	connectTimeout = 10 * time.Second
	// lockPause is how often a replica asks whether another has migrated.
	lockPause = 50 * time.Millisecond
)

func openPostgres(ctx context.Context, cfg Config) (*DB, error) {
	pg, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("database URL of room %s: %w", cfg.Room, err) // pgx leaves the password out
	}
	if pg.RuntimeParams["application_name"] == "" {
		pg.RuntimeParams["application_name"] = "forge " + cfg.Room
	}
	if pg.ConnectTimeout == 0 {
		pg.ConnectTimeout = connectTimeout
	}
	pooled, err := behindPooler(ctx, pg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database of room %s: %w", cfg.Room, err)
	}
	var pool *sql.DB
	if pooled {
		cfg.Log.InfoContext(ctx, "database is behind a pooler: each statement is run in a transaction of its own", "room", cfg.Room)
		pool = sql.OpenDB(newPooledConnector(*pg, cfg.Room))
	} else {
		pg.RuntimeParams["search_path"] = cfg.Room
		pool = stdlib.OpenDB(*pg)
	}
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(idleConnections)
	pool.SetConnMaxLifetime(connectionLife)
	if err := migratePostgres(ctx, pool, cfg); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return &DB{Dialect: Postgres, room: cfg.Room, migrations: cfg.Migrations, write: pool, read: pool}, nil
}

// migratePostgres creates the schema and migrates it while a transaction holds a
// lock, so that of several replicas starting one migrates and the rest wait.
func migratePostgres(ctx context.Context, pool *sql.DB, cfg Config) error {
	lock, err := lockMigrations(ctx, pool, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Rollback() }() // it has changed nothing
	// A role may own a schema that was made for it without being allowed to make one.
	var exists bool
	err = pool.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", cfg.Room).Scan(&exists)
	if err == nil && !exists {
		_, err = pool.ExecContext(ctx, "CREATE SCHEMA "+pgx.Identifier{cfg.Room}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("create schema %s: %w", cfg.Room, err)
	}
	return migrate(ctx, goose.DialectPostgres, pool, cfg)
}

// lockMigrations returns the transaction that holds the lock. It is one lock for
// all rooms of the database, and whoever waits for it has no transaction: a pooler
// may lend two connections in all, and the holder needs both.
func lockMigrations(ctx context.Context, pool *sql.DB, cfg Config) (*sql.Tx, error) {
	for {
		tx, err := pool.BeginTx(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("connect to the database of room %s: %w", cfg.Room, err)
		}
		var locked bool
		err = tx.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock(hashtextextended('forge migrations', 0))").Scan(&locked)
		if err == nil && locked {
			return tx, nil
		}
		if err = errors.Join(err, tx.Rollback()); err != nil {
			return nil, fmt.Errorf("lock the migrations of room %s: %w", cfg.Room, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock the migrations of room %s: %w", cfg.Room, ctx.Err())
		case <-time.After(lockPause):
		}
	}
}
