package kittest

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// migratedSQLite holds the file of each room's empty database, by fingerprint: to
// migrate one takes far longer than to copy it.
var migratedSQLite sync.Map

// SQLiteDir is a directory with a room's empty database in it, in memory where the
// system has such a place: what a crash of the machine does is no test's subject.
func SQLiteDir(t testing.TB, room string, migrations fs.FS) string {
	t.Helper()
	key := fingerprint(t, room, migrations)
	file, made := migratedSQLite.Load(key)
	if !made {
		file = migrateSQLite(t, room, migrations)
		migratedSQLite.Store(key, file)
	}
	dir := memoryDir(t)
	content, _ := file.([]byte)
	if err := os.WriteFile(filepath.Join(dir, room+".db"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func migrateSQLite(t testing.TB, room string, migrations fs.FS) []byte {
	t.Helper()
	dir := memoryDir(t)
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: room, Migrations: migrations})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // which folds the log into the file
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, room+".db"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "forge_test_") //nolint:usetesting // in memory
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the database: %v", err)
		}
	})
	return dir
}
