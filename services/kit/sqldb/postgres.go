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
)

func openPostgres(ctx context.Context, cfg Config) (*DB, error) {
	pg, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("database URL of room %s: %w", cfg.Room, err) // pgx leaves the password out
	}
	pg.RuntimeParams["search_path"] = cfg.Room
	if pg.RuntimeParams["application_name"] == "" {
		pg.RuntimeParams["application_name"] = "forge " + cfg.Room
	}
	if pg.ConnectTimeout == 0 {
		pg.ConnectTimeout = connectTimeout
	}
	pool := stdlib.OpenDB(*pg)
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(idleConnections)
	pool.SetConnMaxLifetime(connectionLife)
	if err := migratePostgres(ctx, pool, cfg); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return &DB{Dialect: Postgres, write: pool, read: pool}, nil
}

// migratePostgres creates the schema and migrates it while it holds an advisory
// lock of its own session, so that of several replicas starting one migrates and
// the rest wait.
func migratePostgres(ctx context.Context, pool *sql.DB, cfg Config) (err error) {
	session, err := pool.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database of room %s: %w", cfg.Room, err)
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	lock := "forge migrations of " + cfg.Room
	if _, err := session.ExecContext(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", lock); err != nil {
		return fmt.Errorf("lock the migrations of room %s: %w", cfg.Room, err)
	}
	defer func() {
		_, unlockErr := session.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock(hashtextextended($1, 0))", lock)
		err = errors.Join(err, unlockErr)
	}()
	// A role may own a schema that was made for it without being allowed to make one.
	var exists bool
	err = session.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", cfg.Room).Scan(&exists)
	if err == nil && !exists {
		_, err = session.ExecContext(ctx, "CREATE SCHEMA "+pgx.Identifier{cfg.Room}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("create schema %s: %w", cfg.Room, err)
	}
	return migrate(ctx, goose.DialectPostgres, pool, cfg)
}
