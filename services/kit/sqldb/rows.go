package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// Querier is a transaction, or the pool for reads.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Row is one row of a result.
type Row interface{ Scan(columns ...any) error }

// Collect reads all rows that a query finds; scan must not keep the row.
func Collect[R any](ctx context.Context, q Querier, scan func(Row) (R, error), query string, args ...any) (all []R, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// First reads the first row that a query finds; where it finds none, it returns the zero value.
func First[R any](ctx context.Context, q Querier, scan func(Row) (R, error), query string, args ...any) (first R, err error) {
	found, err := Collect(ctx, q, scan, query, args...)
	if err == nil && len(found) > 0 {
		first = found[0]
	}
	return first, err
}

// Marks are the parameters of a list, from $first on: Marks(2, 3) is "$2, $3, $4".
func Marks(first, count int) string { return string(appendMarks(nil, first, count)) }

// RowMarks are the parameters of several rows, from $1 on: RowMarks(2, 2) is "($1, $2), ($3, $4)".
func RowMarks(rows, columns int) string {
	text := make([]byte, 0, rows*columns*6)
	for row := range rows {
		if row > 0 {
			text = append(text, ", "...)
		}
		text = append(appendMarks(append(text, '('), row*columns+1, columns), ')')
	}
	return string(text)
}

func appendMarks(text []byte, first, count int) []byte {
	for i := range count {
		if i > 0 {
			text = append(text, ", "...)
		}
		text = strconv.AppendInt(append(text, '$'), int64(first+i), 10)
	}
	return text
}

// FreeLeases runs free in a transaction, at the start of a room. A SQLite file has one process, so what was leased then was
// leased by one that is dead. On PostgreSQL nothing is run: other replicas hold leases, and a dead one's run out by
// themselves.
func (db *DB) FreeLeases(ctx context.Context, free func(ctx context.Context, tx *sql.Tx) error) error {
	if db.Dialect != SQLite {
		return nil
	}
	if err := db.Write(ctx, free); err != nil {
		return Kind(fmt.Errorf("free leases: %w", err))
	}
	return nil
}
