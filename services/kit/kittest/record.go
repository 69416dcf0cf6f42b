package kittest

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Recording is what a room did to its tables on PostgreSQL, row by row and in
// order. It can be played back for any number of others of the same kind, all at
// once, which leaves the same rows behind, dead ones included, in a fraction of the
// time that the room itself would take.
type Recording struct {
	room    string
	changes []Change
	types   map[string]string   // of columns, by table.column
	columns map[string][]string // of tables
	keys    map[string][]string // the primary key of each table
	serials map[string]bool     // columns whose values the database gives, by table.column
}

// Without leaves out what was recorded of some tables: those that a room writes by
// the clock, whatever it is asked.
func (r *Recording) Without(tables ...string) *Recording {
	rest := *r
	rest.changes = slices.DeleteFunc(slices.Clone(r.changes), func(c Change) bool { return slices.Contains(tables, c.Table) })
	return &rest
}

// Change is a row before and after a statement, by column; nil where it was not
// there.
type Change struct {
	Table    string
	Old, New map[string]any
}

// Record has the room of a database do something and returns what it did. Nobody
// else may write to the database meanwhile.
func Record(t testing.TB, db *sql.DB, room string, do func()) *Recording {
	t.Helper()
	r := &Recording{
		room: room, types: map[string]string{}, columns: map[string][]string{}, keys: map[string][]string{}, serials: map[string]bool{},
	}
	r.describe(t, db)
	statements := []string{
		`CREATE SCHEMA forge_record`,
		`CREATE TABLE forge_record.changes (n BIGSERIAL, part TEXT, old JSONB, new JSONB)`,
		`CREATE FUNCTION forge_record.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO forge_record.changes (part, old, new) VALUES (TG_TABLE_NAME, to_jsonb(OLD), to_jsonb(NEW)); RETURN NULL; END $$`,
	}
	for table := range r.columns {
		statements = append(statements, fmt.Sprintf(`CREATE TRIGGER forge_record AFTER INSERT OR UPDATE OR DELETE ON %s.%s
			FOR EACH ROW EXECUTE FUNCTION forge_record.note()`, room, table))
	}
	execAll(t, db, statements...)
	do()
	scan := func(rows *sql.Rows) {
		var c Change
		var before, after sql.NullString
		if err := rows.Scan(&c.Table, &before, &after); err != nil {
			t.Fatal(err)
		}
		c.Old, c.New = rowOf(t, before), rowOf(t, after)
		r.changes = append(r.changes, c)
	}
	query(t, db, scan, `SELECT part, old, new FROM forge_record.changes ORDER BY n`)
	for table := range r.columns {
		execAll(t, db, fmt.Sprintf(`DROP TRIGGER forge_record ON %s.%s`, room, table))
	}
	execAll(t, db, `DROP SCHEMA forge_record CASCADE`)
	return r
}

// Changes are what was recorded.
func (r *Recording) Changes() []Change { return r.changes }

func rowOf(t testing.TB, text sql.NullString) map[string]any {
	t.Helper()
	if !text.Valid {
		return nil
	}
	row := map[string]any{}
	decoder := json.NewDecoder(strings.NewReader(text.String))
	decoder.UseNumber()
	if err := decoder.Decode(&row); err != nil {
		t.Fatal(err)
	}
	return row
}

// describe reads how the room's tables are made.
func (r *Recording) describe(t testing.TB, db *sql.DB) {
	t.Helper()
	query(t, db, func(rows *sql.Rows) {
		var table, column, kind string
		var given, key bool
		if err := rows.Scan(&table, &column, &kind, &given, &key); err != nil {
			t.Fatal(err)
		}
		r.columns[table] = append(r.columns[table], column)
		r.types[table+"."+column], r.serials[table+"."+column] = kind, given
		if key {
			r.keys[table] = append(r.keys[table], column)
		}
	}, `SELECT c.relname, a.attname, format_type(a.atttypid, NULL), COALESCE(pg_get_expr(d.adbin, d.adrelid), '') LIKE 'nextval%',
			EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey))
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname <> 'goose_db_version' ORDER BY c.relname, a.attnum`, r.room)
}

// Like is what was recorded, one line a change, in which moments and the values of the
// named columns, given as table.column, do not show: what two recordings of the same
// kind have in common.
func (r *Recording) Like(hidden ...string) []string {
	var lines []string
	for _, c := range r.changes {
		line := []string{c.Table + ":"}
		for n, row := range []map[string]any{c.Old, c.New} {
			if n == 1 {
				line = append(line, "->")
			}
			for _, column := range r.columns[c.Table] {
				value := fmt.Sprint(row[column])
				number, err := strconv.ParseInt(value, 10, 64)
				switch {
				case row == nil:
					continue
				case slices.Contains(hidden, c.Table+"."+column):
					value = "hidden"
				case err == nil && isMoment(number):
					value = "moment"
				}
				line = append(line, column+"="+value)
			}
		}
		lines = append(lines, strings.Join(line, " "))
	}
	return lines
}

// Part is something of a recording that is another in each copy.
type Part struct {
	// Name is what expressions of other parts know it by.
	Name string
	// Text was recorded, in columns of text and of bytes, as a whole or among other
	// things. In a copy as many bytes stand there.
	Text string
	// Columns are those that hold the part and nothing else, as table.column.
	Columns []string
	// SQL is the part in copy number n.
	SQL string
}

// Copies says which copies of a recording are played, and when they take place.
type Copies struct {
	First, Count int64         // their numbers
	Shift        time.Duration // by which all moments of the first are moved
	Within       time.Duration // the last one takes place nearly so much later than the first
}

// Split parts the first few copies from the rest.
func (c Copies) Split(few int64) (first, rest Copies) {
	share := time.Duration(float64(c.Within) * float64(few) / float64(c.Count))
	return Copies{c.First, few, c.Shift, share}, Copies{c.First + few, c.Count - few, c.Shift + share, c.Within - share}
}

// Play does what was recorded again, in all copies.
func (r *Recording) Play(t testing.TB, db *sql.DB, of Copies, parts ...Part) {
	t.Helper()
	ctx := t.Context()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var columns []string
	for _, p := range parts {
		columns = append(columns, p.SQL+" AS "+p.Name)
	}
	all := []string{fmt.Sprintf(`CREATE TEMPORARY TABLE copies AS SELECT n, %d + (n - %d) * %d / %d AS moved, %s
		FROM generate_series(%[2]d::bigint, %[6]d) AS n`, of.Shift.Microseconds(), of.First, of.Within.Microseconds(), of.Count, strings.Join(columns, ", "), of.First+of.Count-1), `ANALYZE copies`}
	for _, c := range r.changes {
		all = append(all, r.statement(c, parts))
	}
	// What was counted of it is handed in at once, for whoever looks whether to vacuum.
	for _, statement := range append(all, `DROP TABLE copies`, `SELECT pg_stat_force_next_flush()`) {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			t.Fatalf("%v in %.2000s", err, statement)
		}
	}
}

// statement makes a change in all copies.
func (r *Recording) statement(c Change, parts []Part) string {
	table := r.room + "." + c.Table
	value := func(row map[string]any, column string) string {
		return r.value(c.Table+"."+column, row[column], parts)
	}
	var names, values, sets, where []string
	for _, column := range r.columns[c.Table] {
		of := c.Table + "." + column
		if c.Old == nil && (!r.serials[of] || partOf(of, parts) != nil) {
			names, values = append(names, column), append(values, value(c.New, column))
		}
		if c.New != nil && fmt.Sprint(c.Old[column]) != fmt.Sprint(c.New[column]) {
			sets = append(sets, column+" = "+value(c.New, column))
		}
	}
	for _, column := range r.keys[c.Table] {
		where = append(where, "stored."+column+" = "+value(c.Old, column))
	}
	switch {
	case c.Old == nil:
		return fmt.Sprintf(`INSERT INTO %s (%s) SELECT %s FROM copies`, table, strings.Join(names, ", "), strings.Join(values, ", "))
	case c.New == nil:
		return fmt.Sprintf(`DELETE FROM %s stored USING copies WHERE %s`, table, strings.Join(where, " AND "))
	}
	if len(sets) == 0 { // a row that is written as it was is a new version all the same
		same := r.columns[c.Table][len(r.columns[c.Table])-1]
		sets = append(sets, same+" = stored."+same)
	}
	return fmt.Sprintf(`UPDATE %s stored SET %s FROM copies WHERE %s`, table, strings.Join(sets, ", "), strings.Join(where, " AND "))
}

func partOf(column string, parts []Part) *Part {
	for n := range parts {
		if slices.Contains(parts[n].Columns, column) {
			return &parts[n]
		}
	}
	return nil
}

// Numbers between these are moments, in microseconds since 1970.
const (
	firstMoment = 1_500_000_000_000_000
	lastMoment  = 2_500_000_000_000_000
)

func isMoment(number int64) bool { return number > firstMoment && number < lastMoment }

// value is what a column of a copy holds, as an expression over the table copies.
func (r *Recording) value(column string, recorded any, parts []Part) string {
	if recorded == nil {
		return "NULL"
	}
	if p := partOf(column, parts); p != nil {
		return "copies." + p.Name
	}
	switch kind := r.types[column]; kind {
	case "text":
		text, _ := recorded.(string)
		expr := "'" + strings.ReplaceAll(text, "'", "''") + "'"
		for _, p := range parts {
			if p.Text != "" && strings.Contains(text, p.Text) {
				expr = fmt.Sprintf("replace(%s, '%s', copies.%s)", expr, p.Text, p.Name)
			}
		}
		return expr
	case "bytea":
		text, _ := recorded.(string)
		text = strings.TrimPrefix(text, `\x`)
		expr := "'" + text + "'"
		for _, p := range parts {
			if at := hex.EncodeToString([]byte(p.Text)); p.Text != "" && strings.Contains(text, at) {
				expr = fmt.Sprintf("replace(%s, '%s', encode(convert_to(copies.%s, 'UTF8'), 'hex'))", expr, at, p.Name)
			}
		}
		return "decode(" + expr + ", 'hex')"
	case "bigint":
		number, err := strconv.ParseInt(fmt.Sprint(recorded), 10, 64)
		if err == nil && isMoment(number) {
			return fmt.Sprintf("%d + copies.moved", number)
		}
		return strconv.FormatInt(number, 10)
	default:
		return fmt.Sprintf("'%v'::%s", recorded, kind)
	}
}

func execAll(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
}

func query(t testing.TB, db *sql.DB, scan func(*sql.Rows), text string, args ...any) {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), text, args...)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		scan(rows)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// Left are the rows that a recording leaves behind, in the manner of Like, sorted.
func Left(r *Recording, hidden ...string) []string {
	rows := map[string]map[string]any{}
	for _, c := range r.changes {
		row := c.New
		if row == nil {
			row = c.Old
		}
		parts := []string{c.Table}
		for _, column := range r.keys[c.Table] {
			parts = append(parts, fmt.Sprint(row[column]))
		}
		key := strings.Join(parts, " ")
		delete(rows, key)
		if c.New != nil {
			rows[key] = c.New
		}
	}
	last := &Recording{columns: r.columns}
	for key, row := range rows {
		table, _, _ := strings.Cut(key, " ")
		last.changes = append(last.changes, Change{Table: table, New: row})
	}
	lines := last.Like(hidden...)
	slices.Sort(lines)
	return lines
}
