package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// behindPooler reports whether a pooler such as PgBouncer answers in place of the
// server: it tells its clients process ids of its own making.
func behindPooler(ctx context.Context, pg *pgx.ConnConfig) (bool, error) {
	conn, err := pgx.ConnectConfig(ctx, pg)
	if err != nil {
		return false, err
	}
	var server uint32
	err = conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&server)
	told := conn.PgConn().PID()
	return server != told, errors.Join(err, conn.Close(ctx))
}

// pooledConnector makes connections through a pooler, which may give each
// transaction another connection to the server. So nothing is kept between
// transactions: no prepared statement, and no search path.
type pooledConnector struct {
	driver.Connector
	schema string
}

func newPooledConnector(pg pgx.ConnConfig, schema string) driver.Connector {
	pg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // the types of statements are kept here, not at the server
	return pooledConnector{stdlib.GetConnector(pg), pgx.Identifier{schema}.Sanitize()}
}

// Connect implements driver.Connector.
func (c pooledConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection of pgx is a %T", conn), conn.Close())
	}
	return &pooledConn{Conn: inner, setSchema: "SET LOCAL search_path TO " + c.schema}, nil
}

// pooledConn sets the search path in each transaction, and runs in a transaction
// what is run outside of one. Like any driver.Conn it is used by one at a time.
type pooledConn struct {
	*stdlib.Conn
	setSchema string
	inTx      bool
}

// BeginTx implements driver.ConnBeginTx.
func (c *pooledConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	if _, err := c.Conn.ExecContext(ctx, c.setSchema, nil); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	c.inTx = true
	return pooledTx{tx, c}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *pooledConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.inTx {
		return c.Conn.ExecContext(ctx, query, args)
	}
	tx, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return nil, err
	}
	result, err := c.Conn.ExecContext(ctx, query, args)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return result, tx.Commit()
}

// QueryContext implements driver.QueryerContext.
func (c *pooledConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.inTx {
		return c.Conn.QueryContext(ctx, query, args)
	}
	tx, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return nil, err
	}
	rows, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return pooledRows{rows, tx}, nil
}

// Prepare implements driver.Conn.
func (c *pooledConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext implements driver.ConnPrepareContext.
func (*pooledConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errors.New("a pooler keeps no prepared statements")
}

type pooledTx struct {
	driver.Tx
	conn *pooledConn
}

// Commit implements driver.Tx.
func (t pooledTx) Commit() error {
	t.conn.inTx = false
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t pooledTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

// pooledRows are those of a query outside of a transaction, whose own ends with
// them.
type pooledRows struct {
	driver.Rows
	tx driver.Tx
}

// Close implements driver.Rows.
func (r pooledRows) Close() error { return errors.Join(r.Rows.Close(), r.tx.Commit()) }
