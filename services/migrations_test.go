package services_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// A migration that does not say on which older binaries it is lenient forbids
// them all, and so the way back: whoever writes one is to have thought of it.
func TestMigrationsSayWhichIsTheOldestThatMayRun(t *testing.T) {
	for _, complaint := range thoughtless(t, os.DirFS(".")) {
		t.Error(complaint)
	}
}

// The checker itself.
func TestMigrationsWithoutAnOldestAreReported(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	got := thoughtless(t, fstest.MapFS{
		"gateway/migrations/00001_inbox.sql":         file("-- oldest: 1\n-- +goose Up\n"),
		"gateway/migrations/00003_silent.sql":        file("-- +goose Up\n"),
		"gateway/migrations/00004_late.sql":          file("-- oldest: 5\n-- +goose Up\n"),
		"scheduler/store/migrations/00009_space.sql": file("-- oldest:1\n-- +goose Up\n"),
		"scheduler/store/migrations/00012_fits.sql":  file("-- +goose Up\n\n-- oldest: 9\n"),
		"scheduler/store/query.sql":                  file("SELECT 1"),
	})
	want := []string{
		"gateway/migrations/00003_silent.sql: " + sayOldest,
		"gateway/migrations/00004_late.sql: " + sayOldest,
		"scheduler/store/migrations/00009_space.sql: " + sayOldest,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const sayOldest = "add a line \"-- oldest: N\": the oldest migration, this one at most, that a binary must know " +
	"to do no harm on a database where this one is applied; see services/kit/sqldb/doc.go"

func thoughtless(t *testing.T, root fs.FS) (complaints []string) {
	t.Helper()
	found, line := 0, regexp.MustCompile(`(?m)^-- oldest: (\d+)$`)
	err := fs.WalkDir(root, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Base(path.Dir(name)) != "migrations" || path.Ext(name) != ".sql" {
			return err
		}
		found++
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		number, _, _ := strings.Cut(path.Base(name), "_")
		own, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if said := line.FindSubmatch(text); said != nil {
			if oldest, err := strconv.Atoi(string(said[1])); err == nil && oldest <= own {
				return nil
			}
		}
		complaints = append(complaints, name+": "+sayOldest)
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("%d migrations, %v", found, err)
	}
	return complaints
}
