package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlitecode "modernc.org/sqlite/lib"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Kind gives an error of the database the kind a caller branches on, with a
// text that shows no SQL: no row is NotFound, a row that is there already is
// Exists, a database that is busy, full or out of reach is Unavailable. An error
// that has a kind keeps it; any other is returned as it is. The driver's error
// stays within reach of errors.As.
func Kind(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Internal {
		return err
	}
	if told := told(err); told != nil {
		return &kindError{told: told, cause: err}
	}
	return err
}

type kindError struct{ told, cause error }

func (e *kindError) Error() string   { return e.told.Error() }
func (e *kindError) Unwrap() []error { return []error{e.told, e.cause} }

// told is what a caller is told of err, nil when there is nothing it could do.
func told(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.NotFound, "not found")
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return toldOfSQLite(e.Code())
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return toldOfPostgres(e.Code)
	}
	_, network := errors.AsType[net.Error](err)
	if network || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err) {
		return fault.New(fault.Unavailable, "the database cannot be reached: try again")
	}
	return nil
}

// https://www.sqlite.org/rescode.html: the low byte is the primary code.
func toldOfSQLite(code int) error {
	switch code {
	case sqlitecode.SQLITE_CONSTRAINT_UNIQUE, sqlitecode.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fault.New(fault.Exists, "exists already")
	}
	switch code & 0xff {
	case sqlitecode.SQLITE_BUSY, sqlitecode.SQLITE_LOCKED:
		return fault.New(fault.Unavailable, "the database is busy: try again")
	case sqlitecode.SQLITE_FULL:
		return fault.New(fault.Unavailable, "the database has no room left on its disk")
	case sqlitecode.SQLITE_IOERR, sqlitecode.SQLITE_CANTOPEN, sqlitecode.SQLITE_READONLY:
		return fault.New(fault.Unavailable, "the database file cannot be read or written")
	}
	return nil
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html: the first two
// characters are the class.
func toldOfPostgres(code string) error {
	switch code {
	case "23505":
		return fault.New(fault.Exists, "exists already")
	case serializationFailure, deadlockDetected, "55P03": // lock not available
		return fault.New(fault.Unavailable, "the database is busy: try again")
	case "53100":
		return fault.New(fault.Unavailable, "the database has no room left on its disk")
	}
	switch code[:min(2, len(code))] {
	case "08", "53", "57", "58": // connection, resources, operator intervention, system
		return fault.New(fault.Unavailable, "the database is not available: try again")
	}
	return nil
}
