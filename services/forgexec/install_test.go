package forgexec

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestInstallPutsThisProgramIntoAFolderForAnybodyToRun(t *testing.T) {
	dir := t.TempDir()
	main := func(args ...string) int {
		var said bytes.Buffer
		code := Main(t.Context(), args, nil, nil, &said, &said)
		t.Logf("%v: exit %d: %s", args, code, said.String())
		return code
	}
	if main("--installed", dir, "--as", "forgexec-1") == exitReported {
		t.Error("it is installed before it was")
	}
	for range 2 { // the second finds it there
		if code := main("--install", dir, "--as", "forgexec-1"); code != exitReported {
			t.Fatalf("exit %d", code)
		}
	}
	if code := main("--install", dir); code != exitReported {
		t.Fatalf("exit %d", code)
	}
	own, err := ownName()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"forgexec-1", own} {
		path := filepath.Join(dir, name)
		if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, self) {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		if code := main("--installed", dir, "--as", name); code != exitReported {
			t.Errorf("%s is not installed", name)
		}
	}
	path := filepath.Join(dir, "forgexec-1")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if main("--installed", dir, "--as", "forgexec-1") == exitReported {
		t.Error("it is installed though nobody else can run it")
	}
	for _, wrong := range [][]string{{"--stay"}, {"--as", "x"}, {"--install", dir, "--as", "../x"}, {"--install", dir, "--installed", dir}} {
		if code := main(wrong...); code != exitUsage {
			t.Errorf("%v: exit %d, want %d", wrong, code, exitUsage)
		}
	}
}

func TestInstallReplacesAFileOfOtherContentAtOnce(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	path := filepath.Join(dir, "forgexec-1")
	if err := os.WriteFile(path, []byte("older"), 0o555); err != nil {
		t.Fatal(err)
	}
	older, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = older.Close() }()
	i := installation{dir: dir, name: "forgexec-1", now: func() time.Time { return now }}
	if err := i.place(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 5)
	if _, err := older.Read(text); err != nil || string(text) != "older" {
		t.Errorf("who has it open reads %q, %v", text, err)
	}
	if err := i.check(); err != nil {
		t.Error(err)
	}
	now = now.Add(freshFor + time.Hour)
	if i.check() == nil {
		t.Error("a file that nobody touches passes for installed")
	}
}

func TestInstallerThatStaysRemovesWhatNobodyTouchesAndEndsWhenTold(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	for name, age := range map[string]time.Duration{
		"forgexec-old": staleAfter + time.Hour, "forgexec-young": staleAfter - time.Hour, unfinished + "1": touchEvery + time.Hour,
		unfinished + "2": time.Hour, "other": 2 * staleAfter,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o555); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it is told to end at once
	if err := (installation{dir, "forgexec-1", time.Now}).install(ctx, true, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{unfinished + "2", "forgexec-1", "forgexec-young", "other"}; !slices.Equal(names, want) {
		t.Errorf("there are %q, want %q", names, want)
	}
}
