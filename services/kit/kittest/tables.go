package kittest

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Table is how much a table of a room holds on PostgreSQL.
type Table struct {
	Name          string
	Rows, Dead    int64 // as PostgreSQL counts them
	Heap, Indexes int64 // bytes
}

// Tables are those of a room, by name.
func Tables(t testing.TB, db *sql.DB, room string) map[string]Table {
	t.Helper()
	tables := map[string]Table{}
	query(t, db, func(rows *sql.Rows) {
		var one Table
		if err := rows.Scan(&one.Name, &one.Rows, &one.Dead, &one.Heap, &one.Indexes); err != nil {
			t.Fatal(err)
		}
		tables[one.Name] = one
	}, `SELECT relname, n_live_tup, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid)
		FROM pg_stat_user_tables WHERE schemaname = $1 AND relname NOT IN ('goose_db_version', 'schema_versions')`, room)
	return tables
}

// Autovacuum does what PostgreSQL's autovacuum does by itself with the settings that
// it is installed with, for tests in which a day passes before it looks again.
func Autovacuum(t testing.TB, db *sql.DB, room string) {
	t.Helper()
	var due []string
	query(t, db, func(rows *sql.Rows) {
		var name string
		var vacuum, analyze bool
		if err := rows.Scan(&name, &vacuum, &analyze); err != nil {
			t.Fatal(err)
		}
		if vacuum {
			due = append(due, "VACUUM "+room+"."+name)
		}
		if analyze {
			due = append(due, "ANALYZE "+room+"."+name)
		}
	}, `SELECT s.relname, n_dead_tup > 50 + 0.2 * greatest(c.reltuples, 0) OR n_ins_since_vacuum > 1000 + 0.2 * greatest(c.reltuples, 0),
			n_mod_since_analyze > 50 + 0.1 * greatest(c.reltuples, 0)
		FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.schemaname = $1`, room)
	execAll(t, db, due...)
}

// RowsRead counts the rows and the entries of indexes that PostgreSQL reads while do
// uses a database of its own connections, in the table of which it reads most. It is
// what a plan costs, whatever machine it runs on. Where tables are small, PostgreSQL
// is kept from the plans that are good for such alone.
func RowsRead(t testing.TB, cfg sqldb.Config, small bool, do func(*sqldb.DB)) (table string, most int64) {
	t.Helper()
	const name = "forge_rows_read"
	at, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	values := at.Query()
	values.Set("application_name", name)
	if small { // read as a whole, with good reason; large ones must have another way
		for _, name := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"} {
			values.Set(name, "off")
		}
	}
	at.RawQuery = values.Encode()
	watch, err := sql.Open("pgx", cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Close() }()
	cfg.URL = at.String()
	before := rowsRead(t, watch, cfg.Room)
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	do(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// A connection hands in what it has counted when it ends.
	Eventually(t, 10*time.Second, func() error {
		var left int
		err := watch.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`, name).Scan(&left)
		if err == nil && left > 0 {
			err = errors.New("a connection has not ended")
		}
		return err
	})
	for name, count := range rowsRead(t, watch, cfg.Room) {
		if count -= before[name]; count > most {
			table, most = name, count
		}
	}
	return table, most
}

func rowsRead(t testing.TB, db *sql.DB, room string) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	query(t, db, func(rows *sql.Rows) {
		var name string
		var count int64
		if err := rows.Scan(&name, &count); err != nil {
			t.Fatal(err)
		}
		counts[name] = count
	}, `SELECT relname, seq_tup_read + COALESCE((SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = s.relid), 0)::bigint
		FROM pg_stat_user_tables s WHERE schemaname = $1 AND relname NOT IN ('goose_db_version', 'schema_versions')`, room)
	return counts
}

// LogTables has the test say how large tables are.
func LogTables(t testing.TB, about string, tables map[string]Table) {
	t.Helper()
	var lines []string
	for _, one := range tables {
		if one.Rows+one.Dead > 0 || one.Heap > 64<<10 {
			lines = append(lines, fmt.Sprintf("%-14s %9d rows %8d dead %8.1f MB and %7.1f MB of indexes", one.Name, one.Rows, one.Dead,
				float64(one.Heap)/(1<<20), float64(one.Indexes)/(1<<20)))
		}
	}
	slices.Sort(lines)
	t.Logf("%s:\n%s", about, strings.Join(lines, "\n"))
}
