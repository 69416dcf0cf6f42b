package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/backup"
	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// restorer is set where the test binary is to restore, and be killed while it does.
const restorer = "FORGE_TEST_RESTORER"

func TestMain(m *testing.M) {
	if where := os.Getenv(restorer); where != "" {
		from, dir, _ := strings.Cut(where, "|")
		_, _ = os.Stdout.WriteString("begun\n")
		if _, err := backup.Restore(context.Background(), backup.Target{From: from, DataDir: dir, Force: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func rooms() map[string]fs.FS {
	return map[string]fs.FS{"gateway": gateway.Migrations(), "scheduler": scheduler.Migrations(), "reporter": reporter.Migrations()}
}

// state is a data directory in which each database, one blob and the keys hold a word.
func state(t *testing.T, word string) (dir string) {
	t.Helper()
	return stateOf(t, word, rooms())
}

// stateOf is one of a Forge that knows these migrations.
func stateOf(t *testing.T, word string, known map[string]fs.FS) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for room, migrations := range known {
		change(t, dir, room, migrations, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "CREATE TABLE words (word TEXT)")
			if err == nil {
				_, err = tx.ExecContext(ctx, "INSERT INTO words VALUES ($1)", word)
			}
			if err == nil && room == "scheduler" {
				_, err = tx.ExecContext(ctx, `INSERT INTO archives (build_id, attempt, blob, frames, old, due_time, tries, end_time) VALUES
					('b1', 1, 'logs/kept', '', FALSE, 0, 0, 0), ('b2', 1, 'logs/gone', '', FALSE, 0, 0, 0), ('b3', 1, 'logs/old', '', TRUE, 0, 0, 0)`)
			}
			return err
		})
	}
	db := opened(t, dir, "scheduler", known["scheduler"])
	instance, err := scheduler.Instance(t.Context(), db)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"blobs/scheduler/" + instance + "/logs/kept":    "log of " + word,
		"blobs/scheduler/" + instance + "/logs/old":     "the log of nobody, read no more",
		"blobs/scheduler/" + instance + "/logs/unnamed": "a stray that nobody has named",
		"secrets-key":        "key of " + word,
		"runner-tls/key.pem": "hidden from all",
	} {
		write(t, filepath.Join(dir, path), text)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, dir, room string, migrations fs.FS) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: dir, Room: room, Migrations: migrations})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func change(t *testing.T, dir, room string, migrations fs.FS, do func(context.Context, *sql.Tx) error) {
	t.Helper()
	db := opened(t, dir, room, migrations)
	if err := errors.Join(db.Write(t.Context(), do), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// words are those of a data directory, the same one in all that it holds; an error where
// they differ.
func words(t *testing.T, dir string) (string, error) {
	t.Helper()
	found := map[string]bool{}
	for room, migrations := range rooms() {
		db := opened(t, dir, room, migrations)
		var word string
		if err := errors.Join(db.Read().QueryRowContext(t.Context(), "SELECT word FROM words").Scan(&word), db.Intact(t.Context()), db.Close()); err != nil {
			return "", fmt.Errorf("%s: %w", room, err)
		}
		found[word] = true
	}
	logs, err := filepath.Glob(filepath.Join(dir, "blobs/scheduler/*/logs/kept"))
	if err != nil || len(logs) != 1 {
		return "", fmt.Errorf("logs %v, %w", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		return "", err
	}
	found[strings.TrimPrefix(string(text), "log of ")] = true
	if len(found) != 1 {
		return "", fmt.Errorf("a mixture: %v", found)
	}
	for word := range found {
		return word, nil
	}
	return "", nil
}

// archive is a backup of a data directory, with its keys beside it.
func archive(t *testing.T, dir string) (path, keys string, m *backup.Manifest) {
	t.Helper()
	folder := t.TempDir()
	path, keys = filepath.Join(folder, "a.tar.zst"), filepath.Join(folder, "keys")
	m, err := backup.Create(t.Context(), backup.Source{DataDir: dir, To: path, KeysTo: keys, Version: "v1", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(folder)
	if err != nil || len(left) != 2 {
		t.Errorf("beside the backup lie %v, %v", left, err)
	}
	return path, keys, m
}

func TestABackupIsRestoredElsewhere(t *testing.T) {
	from := state(t, "first")
	path, keys, m := archive(t, from)
	if len(m.Files) != 4 || len(m.Gone) != 1 || !strings.HasSuffix(m.Gone[0], "/logs/gone") || len(m.Databases) != 3 || m.Databases[0].Room != "gateway" {
		t.Errorf("%+v", m)
	}
	for _, file := range []string{path, keys} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	plain := unpacked(t, path)
	if bytes.Contains(plain, []byte("key of first")) || bytes.Contains(plain, []byte("hidden from all")) || bytes.Contains(plain, []byte("the log of nobody, read no more")) || bytes.Contains(plain, []byte("a stray that nobody has named")) {
		t.Error("the backup has keys, or blobs that no database names")
	}
	to := filepath.Join(t.TempDir(), "new")
	done, err := backup.Restore(t.Context(), backup.Target{From: path, KeysFrom: keys, DataDir: to})
	if err != nil || len(done.Missing) > 0 {
		t.Fatalf("%v, %v", done, err)
	}
	if got, err := words(t, to); got != "first" {
		t.Errorf("restored is %q, %v", got, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "secrets-key")); string(text) != "key of first" {
		t.Errorf("the key is %q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(to, ".restore-*")); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if _, err := backup.Restore(t.Context(), backup.Target{From: path, DataDir: to}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("over a state that is there: %v", err)
	}
	second, _, _ := archive(t, state(t, "second"))
	if _, err := backup.Restore(t.Context(), backup.Target{From: second, KeysFrom: keys, DataDir: to, Force: true}); err == nil || !strings.Contains(err.Error(), "another Forge") {
		t.Errorf("with another's keys: %v", err)
	}
	if done, err = backup.Restore(t.Context(), backup.Target{From: second, DataDir: to, Force: true}); err != nil || len(done.Missing) != 2 || !strings.HasPrefix(done.Missing[0], "secrets-key: without it the secrets") {
		t.Errorf("%+v, %v", done, err)
	}
	if got, err := words(t, to); got != "second" {
		t.Errorf("restored over it is %q, %v", got, err)
	}
	db := opened(t, to, "gateway", gateway.Migrations())
	defer db.Close()
	if _, err := backup.Restore(t.Context(), backup.Target{From: path, DataDir: to, Force: true}); err == nil || !strings.Contains(err.Error(), "stop the Forge") {
		t.Errorf("under a Forge that runs: %v", err)
	}
}

func unpacked(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	text, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is cut off, damaged, foreign or hostile is refused before anything is touched.
func TestABrokenArchiveIsRefused(t *testing.T) {
	path, _, _ := archive(t, state(t, "new"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plain := unpacked(t, path)
	packed := func(text []byte) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out)
		if err == nil {
			_, err = w.Write(text)
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	entry := func(header *tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(make([]byte, header.Size))
		_ = w.Flush()
		return packed(append(out.Bytes(), plain...))
	}
	broken := map[string][]byte{
		"empty": {}, "no archive": []byte("#!/bin/sh\n"), "without a manifest": packed(plain[:len(plain)-4096-1024]),
		"above the folder":   entry(&tar.Header{Name: "../evil", Mode: 0o600, Size: 1, Typeflag: tar.TypeReg}),
		"an absolute path":   entry(&tar.Header{Name: "/tmp/evil", Mode: 0o600, Size: 1, Typeflag: tar.TypeReg}),
		"hidden in a blob":   entry(&tar.Header{Name: "blobs/scheduler/../../../evil", Mode: 0o600, Size: 1, Typeflag: tar.TypeReg}),
		"a symbolic link":    entry(&tar.Header{Name: "blobs/scheduler/link", Linkname: "/etc", Typeflag: tar.TypeSymlink}),
		"a key in it":        entry(&tar.Header{Name: "admin-token", Mode: 0o600, Size: 5, Typeflag: tar.TypeReg}),
		"a blob too many":    entry(&tar.Header{Name: "blobs/scheduler/x/logs/more", Mode: 0o600, Size: 1, Typeflag: tar.TypeReg}),
		"a changed database": packed(bytes.Replace(plain, []byte("log of new"), []byte("log of old"), 1)),
	}
	for n := range 20 {
		broken[fmt.Sprintf("cut off at %d/20", n)] = whole[:len(whole)*n/20]
		bent := bytes.Clone(whole)
		bent[8+n*(len(bent)-9)/20] ^= 0x10
		broken[fmt.Sprintf("a bit at %d/20", n)] = bent
	}
	to := state(t, "old")
	for name, text := range broken {
		file := filepath.Join(t.TempDir(), "broken")
		write(t, file, string(text))
		if _, err := backup.Restore(t.Context(), backup.Target{From: file, DataDir: to, Force: true}); err == nil {
			t.Fatalf("%s: it was restored", name)
		}
		if left, _ := filepath.Glob(filepath.Join(to, ".restore-*")); len(left) > 0 {
			t.Errorf("%s: left are %v", name, left)
		}
	}
	if got, err := words(t, to); got != "old" {
		t.Errorf("after all of these the state is %q, %v", got, err)
	}
	if _, err := backup.Restore(t.Context(), backup.Target{From: path, DataDir: to, Force: true}); err != nil {
		t.Errorf("the whole one: %v", err)
	}
}

// upTo are the migrations that a Forge knew whose newest of a room was that one.
func upTo(t *testing.T, newest map[string]int) map[string]fs.FS {
	t.Helper()
	known := map[string]fs.FS{}
	for room, migrations := range rooms() {
		some := fstest.MapFS{}
		files, err := fs.Glob(migrations, "*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			number, _, _ := strings.Cut(name, "_")
			version, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			if version > newest[room] {
				continue
			}
			text, err := fs.ReadFile(migrations, name)
			if err != nil {
				t.Fatal(err)
			}
			some[name] = &fstest.MapFile{Data: text}
		}
		known[room] = some
	}
	return known
}

// Nothing was released yet, so two schemas of earlier commits stand for the two releases
// before: when caches and artifacts came, and when environments could be named.
func TestABackupOfAnOlderForgeIsUpgraded(t *testing.T) {
	for _, newest := range []map[string]int{
		{"gateway": 50, "scheduler": 110, "reporter": 6},
		{"gateway": 60, "scheduler": 160, "reporter": 10},
	} {
		path, keys, m := archive(t, stateOf(t, "older", upTo(t, newest)))
		for _, d := range m.Databases {
			if d.Schema == 0 || d.Schema > int64(newest[d.Room]) {
				t.Errorf("%s is at %d, %d at most", d.Room, d.Schema, newest[d.Room])
			}
		}
		to := t.TempDir()
		if _, err := backup.Restore(t.Context(), backup.Target{From: path, KeysFrom: keys, DataDir: to}); err != nil {
			t.Fatal(err)
		}
		if got, err := words(t, to); got != "older" {
			t.Errorf("restored is %q, %v", got, err)
		}
		db := opened(t, to, "scheduler", scheduler.Migrations())
		var entries, kept int
		err := db.Read().QueryRowContext(t.Context(), "SELECT (SELECT COUNT(*) FROM audit_entries), (SELECT COUNT(*) FROM archives)").Scan(&entries, &kept)
		if err := errors.Join(err, db.Close()); err != nil || entries != 0 || kept != 3 {
			t.Errorf("%d entries of the audit log, %d logs, %v", entries, kept, err)
		}
	}
}

func TestABackupOfANewerForgeIsRefused(t *testing.T) {
	from := state(t, "future")
	change(t, from, "scheduler", scheduler.Migrations(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)")
		return err
	})
	path, _, _ := archive(t, from)
	_, err := backup.Restore(t.Context(), backup.Target{From: path, DataDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "nothing was changed: database of room scheduler is at version 99999") {
		t.Errorf("%v", err)
	}
}

// A restore that is killed leaves the old state or the new one, whole, once the next start
// has looked.
func TestAKilledRestoreLeavesOneStateOrTheOther(t *testing.T) {
	path, _, _ := archive(t, state(t, "new"))
	seen := map[string]int{}
	for range 12 {
		to := state(t, "old")
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), restorer+"="+path+"|"+to)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("begun\n"))); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(150*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // it was killed, or was faster
		kill.Stop()
		if err := backup.Finish(to); err != nil {
			t.Fatal(err)
		}
		got, err := words(t, to)
		if err != nil || got != "old" && got != "new" {
			t.Errorf("the state is %q: %v", got, err)
		}
		seen[got]++
	}
	t.Logf("%v", seen)
}
