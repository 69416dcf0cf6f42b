package backup

import (
	"os"
	"path/filepath"
	"testing"
)

// Wherever the moving breaks off, whoever comes next ends it: each number of moves that were
// made before is tried.
func TestACommittedRestoreIsFinishedFromAnywhere(t *testing.T) {
	names := []string{"blobs", "gateway.db", "reporter.db", "scheduler.db", "secrets-key"}
	fill := func(dir, word string) {
		for _, name := range names {
			path := filepath.Join(dir, name)
			if name == "blobs" {
				path = filepath.Join(path, word)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(word), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for moved := range len(names) + 1 {
		dir := t.TempDir()
		fill(dir, "old")
		for _, beside := range []string{"gateway.db-wal", "scheduler.db-shm", stagingName + "left/x"} {
			if err := os.MkdirAll(filepath.Join(dir, beside), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		committed := filepath.Join(dir, committedName)
		fill(committed, "new")
		for _, name := range names[:moved] {
			if name == "blobs" {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(filepath.Join(committed, name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second has nothing to do
			if err := Finish(dir); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if name == "blobs" {
				path = filepath.Join(path, "new")
			}
			if text, err := os.ReadFile(path); string(text) != "new" {
				t.Errorf("after %d moves %s is %q, %v", moved, name, text, err)
			}
		}
		for _, gone := range []string{"blobs/old", committedName, stagingName + "left", "gateway.db-wal"} {
			if _, err := os.Stat(filepath.Join(dir, gone)); moved == 0 && !os.IsNotExist(err) {
				t.Errorf("%s is there still: %v", gone, err)
			}
		}
	}
}
