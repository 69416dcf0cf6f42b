package kittest_test

import (
	"testing"
	"testing/fstest"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// A database that the test before has used is as empty as a new one: rows that it
// wrote are gone, rows that migrations made are back, numbers begin with 1. Where it
// changed more than rows, that is gone too.
func TestAUsedDatabaseIsEmptiedForTheNextTest(t *testing.T) {
	kittest.Require(t, "postgres")
	migrations := fstest.MapFS{"001_a.sql": {Data: []byte(`-- +goose Up
CREATE TABLE parents (number {{ID}}, name TEXT);
CREATE TABLE children (parent BIGINT REFERENCES parents (number));
CREATE TABLE places (id BIGINT);
INSERT INTO places VALUES (1);`)}}
	for _, c := range []struct{ name, leave string }{
		{"rows", "INSERT INTO parents (name) VALUES ('a'); INSERT INTO children VALUES (1); UPDATE places SET id = 2"},
		{"a table", "INSERT INTO parents (name) VALUES ('a'); CREATE TABLE more (a TEXT)"},
		{"a column", "ALTER TABLE parents ADD COLUMN a TEXT"},
		{"a lost table", "DROP TABLE children"},
		{"a schema", "CREATE SCHEMA other"},
		{"no seed", "DROP SCHEMA forge_seed CASCADE"},
		{"nothing", "SELECT 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: kittest.Postgres(t, "config", migrations), Room: "config", Migrations: migrations})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			var parents, children, places int64
			err = db.Read().QueryRowContext(t.Context(),
				"SELECT (SELECT count(*) FROM parents), (SELECT count(*) FROM children), (SELECT sum(id) FROM places)").Scan(&parents, &children, &places)
			if err != nil || parents != 0 || children != 0 || places != 1 {
				t.Errorf("%d parents, %d children, places %d, %v", parents, children, places, err)
			}
			var number int64
			if err := db.Read().QueryRowContext(t.Context(), "INSERT INTO parents (name) VALUES ('b') RETURNING number").Scan(&number); err != nil {
				t.Fatal(err)
			}
			kittest.Want(t, number, 1)
			if _, err := db.Read().ExecContext(t.Context(), "DELETE FROM parents"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Read().ExecContext(t.Context(), "ALTER SEQUENCE parents_number_seq RESTART"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Read().ExecContext(t.Context(), c.leave); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTwoTestsHaveTwoDatabases(t *testing.T) {
	kittest.Require(t, "postgres")
	one, other := kittest.Postgres(t, "config", nil), kittest.Postgres(t, "config", nil)
	if one == other {
		t.Errorf("both have %s", one)
	}
}
