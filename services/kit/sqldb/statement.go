package sqldb

import (
	"context"
	"database/sql"
	"sync"
)

// Tx is a transaction of Write whose statements SQLite compiles once: in short
// transactions compiling takes longer than running. Their texts are kept for
// good, so they must be literal. PostgreSQL's driver does the same by itself.
type Tx struct {
	*sql.Tx
	db *DB
}

// Compiled is a transaction with compiled statements.
func (db *DB) Compiled(tx *sql.Tx) *Tx { return &Tx{tx, db} }

// QueryContext is that of sql.Tx.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := t.compiled(ctx, query); s != nil { //nolint:sqlclosecheck // closed with its transaction
		return s.QueryContext(ctx, args...)
	}
	return t.Tx.QueryContext(ctx, query, args...)
}

// QueryRowContext is that of sql.Tx.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := t.compiled(ctx, query); s != nil { //nolint:sqlclosecheck // closed with its transaction
		return s.QueryRowContext(ctx, args...)
	}
	return t.Tx.QueryRowContext(ctx, query, args...)
}

// ExecContext is that of sql.Tx.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := t.compiled(ctx, query); s != nil { //nolint:sqlclosecheck // closed with its transaction
		return s.ExecContext(ctx, args...)
	}
	return t.Tx.ExecContext(ctx, query, args...)
}

// ReadRow is QueryRowContext outside of transactions with a statement that SQLite
// compiles once for each connection. Its text is kept for good as well.
func (db *DB) ReadRow(ctx context.Context, query string, args ...any) *sql.Row {
	if db.Dialect != SQLite {
		return db.read.QueryRowContext(ctx, query, args...)
	}
	db.reads.mu.Lock()
	compiled := db.reads.known[query]
	db.reads.mu.Unlock()
	if compiled == nil {
		var err error
		if compiled, err = db.read.PrepareContext(ctx, query); err != nil {
			return db.read.QueryRowContext(ctx, query, args...) // which says so
		}
		compiled = db.reads.keep(query, compiled) //nolint:sqlclosecheck // closed with its connections
	}
	return compiled.QueryRowContext(ctx, args...)
}

// compiled is the statement for use in this transaction, with which it is
// closed; nil where it is to be run as it is.
func (t *Tx) compiled(ctx context.Context, query string) *sql.Stmt {
	if t.db.Dialect != SQLite {
		return nil
	}
	if known := t.db.statements.get(query); known != nil {
		return t.StmtContext(ctx, known)
	}
	return nil
}

// statements are those that were run. While a transaction has the one connection
// none can be compiled, so one that is met there for the first time is compiled
// after its transaction.
type statements struct {
	mu    sync.Mutex
	known map[string]*sql.Stmt // nil: not compiled
	fresh []string             // to be compiled
}

func (s *statements) get(query string) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	compiled, known := s.known[query]
	if !known {
		if s.known == nil {
			s.known = map[string]*sql.Stmt{}
		}
		s.known[query], s.fresh = nil, append(s.fresh, query)
	}
	return compiled
}

// keep keeps a compiled statement, or closes it where another was faster, and
// returns the one that is kept.
func (s *statements) keep(query string, compiled *sql.Stmt) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if faster := s.known[query]; faster != nil {
		_ = compiled.Close() // nobody has used it
		return faster
	}
	if s.known == nil {
		s.known = map[string]*sql.Stmt{}
	}
	s.known[query] = compiled
	return compiled
}

// met hands out, once, what is to be compiled. The lock is not held meanwhile:
// who has the connection may be waiting for it.
func (s *statements) met() (queries []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	queries, s.fresh = s.fresh, nil
	return queries
}

// compile prepares what transactions have met. A statement that cannot be
// compiled says so whenever it is run.
func (db *DB) compile(ctx context.Context) {
	for _, query := range db.statements.met() {
		compiled, err := db.write.PrepareContext(ctx, query)
		if err != nil {
			continue
		}
		db.statements.keep(query, compiled)
	}
}
