package kittest

import (
	"database/sql"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// PerDay is how many of something a test brings each day of its week: TEST_WEEK, or
// as many as usual.
func PerDay(t testing.TB, usual int64) int64 {
	t.Helper()
	text := os.Getenv("TEST_WEEK")
	if text == "" {
		return usual
	}
	perDay, err := strconv.ParseInt(text, 10, 64)
	if err != nil || perDay < hours {
		t.Fatalf("TEST_WEEK is a number a day, such as 50000, not %q", text)
	}
	return perDay
}

// manyPerDay is from where on the tables of a Week are large.
const manyPerDay = 10000

// hours are how many parts a day of a Week has.
const hours = 8

// Week is one in the life of a room, lived in as much time as its rows take.
type Week struct {
	DB     *sql.DB
	Room   string
	Begin  time.Time
	PerDay int64
}

// Live has each part of each day bring its share of copies, up to now, and PostgreSQL
// cleaned up after it as autovacuum would. At the end of each day look is
// called. The tables must not have more rows after the seventh day than after the
// fifth, but for a tenth, and not take a quarter more room: what was removed last is free
// in them, and indexes of random keys fill up with it in the first days.
func (w Week) Live(t testing.TB, bring func(copies Copies, now time.Time), look func(now time.Time)) {
	t.Helper()
	var days []map[string]Table
	next := int64(1)
	for day := range 7 {
		var now time.Time
		begin := time.Now()
		for hour := range hours {
			share := Copies{
				First: next, Count: w.PerDay / hours,
				Shift: time.Duration(day*hours+hour) * 24 * time.Hour / hours, Within: 24 * time.Hour / hours,
			}
			now = w.Begin.Add(share.Shift + share.Within)
			bring(share, now)
			next += share.Count
			Autovacuum(t, w.DB, w.Room)
		}
		days = append(days, Tables(t, w.DB, w.Room))
		LogTables(t, fmt.Sprintf("day %d, which took %v", day+1, time.Since(begin).Round(time.Second)), days[day])
		look(now)
	}
	const pages, rows = 512 << 10, 150
	for _, name := range slices.Sorted(maps.Keys(days[6])) {
		before, after := days[4][name], days[6][name]
		if after.Rows > before.Rows*11/10+rows || after.Heap > before.Heap*5/4+pages || after.Indexes > before.Indexes*5/4+pages {
			t.Errorf("%s still grows after the fifth day: from %d rows, %d and %d bytes of rows and indexes to %d rows, %d and %d bytes", name,
				before.Rows, before.Heap, before.Indexes, after.Rows, after.Heap, after.Indexes)
		}
	}
}

// Cost is something that a room does again and again.
type Cost struct {
	Name string
	Rows int64 // how many it may read of any table, whatever is stored
	Do   func(*sqldb.DB)
}

// Costs does each and says what it took. It fails where PostgreSQL reads more rows
// than it may.
func (w Week) Costs(t testing.TB, cfg sqldb.Config, costs []Cost) {
	t.Helper()
	for _, c := range costs {
		var took time.Duration
		table, read := RowsRead(t, cfg, w.PerDay < manyPerDay, func(db *sqldb.DB) {
			begin := time.Now()
			c.Do(db)
			took = time.Since(begin)
		})
		t.Logf("%-40s %8.1f ms, reads %6d of %s", c.Name, float64(took.Microseconds())/1000, read, table)
		if read > c.Rows {
			t.Errorf("%s reads %d rows of %s, want %d at most", c.Name, read, table, c.Rows)
		}
	}
}
