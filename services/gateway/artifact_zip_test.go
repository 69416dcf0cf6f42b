package gateway

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	aFolder   = schedulerv1.FileEntry_TYPE_FOLDER
	aLink     = schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK
	aHardLink = schedulerv1.FileEntry_TYPE_HARD_LINK
)

func TestZipHoldsAllFilesOfAnArtifact(t *testing.T) {
	w := withLeftovers(t)
	left := &w.rooms.left
	left.adds(aFolder, "", "")
	left.adds(aFolder, "dist", "")
	left.leaves("dist/large", strings.Repeat("0123456789", 100_000))
	left.leaves("dist/empty", "")
	left.leaves("dist/ünïcode <b>", "1\n")
	left.all[3].entry.Mode = 0o755
	left.adds(aHardLink, "again", "dist/large")
	left.adds(aLink, "dist/link", "../again")
	got := w.ask("GET", "/builds/b1/artifacts/dist")
	h := got.header
	if got.code != 200 || got.err != nil || h.Get("Content-Type") != "application/zip" || h.Get("Content-Disposition") != "attachment; filename=dist.zip" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("%d %v %v", got.code, got.err, h)
	}
	if len(got.body) > 500_000 {
		t.Errorf("it has %d bytes", len(got.body))
	}
	const want = `drwxr-xr-x dist/ 0
-rw-r--r-- dist/large 1000000
-rwxr-xr-x dist/empty 0
-rw-r--r-- dist/ünïcode <b> 2
Lrwxrwxrwx again -> dist/large
Lrwxrwxrwx dist/link -> ../again
`
	if all := listed(t, got.body); all != want {
		t.Errorf("it holds\n%swant\n%s", all, want)
	}
	left.all = nil
	if got := w.ask("GET", "/builds/b1/artifacts/dist"); got.err != nil || listed(t, got.body) != "" {
		t.Errorf("of nothing: %v", got.err)
	}
}

func listed(t *testing.T, body string) string {
	t.Helper()
	archive, err := zip.NewReader(strings.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range archive.File {
		r, err := file.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r) // checks the sum, too
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(file.Name) || strings.ContainsAny(file.Name, "\\\x00\n") {
			t.Errorf("a file is named %q", file.Name)
		}
		if file.Mode()&fs.ModeSymlink != 0 {
			fmt.Fprintf(&all, "%v %s -> %s\n", file.Mode(), file.Name, content)
			continue
		}
		if !file.Modified.Equal(at(0).AsTime()) {
			t.Errorf("%s was modified at %v", file.Name, file.Modified)
		}
		fmt.Fprintf(&all, "%v %s %d\n", file.Mode(), file.Name, len(content))
	}
	return all.String()
}

// Whoever speaks for a build may list what no folder can hold.
func TestZipLeadsNobodyOutOfTheirFolder(t *testing.T) {
	for name, build := range map[string]func(*leftovers){
		"up":             func(l *leftovers) { l.leaves("../evil", "x") },
		"up within":      func(l *leftovers) { l.leaves("a/../../evil", "x") },
		"absolute":       func(l *leftovers) { l.leaves("/etc/passwd", "x") },
		"empty":          func(l *leftovers) { l.leaves("", "x") },
		"dot":            func(l *leftovers) { l.leaves("./a", "x") },
		"zero":           func(l *leftovers) { l.leaves("a\x00.txt", "x") },
		"through a link": func(l *leftovers) { l.adds(aLink, "a", "b"); l.leaves("a/x", "x") },
		"of no kind":     func(l *leftovers) { l.adds(9, "a", "") },
		"more bytes":     func(l *leftovers) { l.leaves("a", "xx"); l.all[0].entry.Size = 1 },
		"fewer bytes":    func(l *leftovers) { l.leaves("a", "xx"); l.all[0].entry.Size = 3 },
		"fewer before":   func(l *leftovers) { l.leaves("a", "xx"); l.all[0].entry.Size = 3; l.leaves("b", "") },
		"bytes of none":  func(l *leftovers) { l.adds(aFolder, "a", ""); l.all[0].data = "xx" },
	} {
		w := withLeftovers(t)
		build(&w.rooms.left)
		if got := w.ask("GET", "/builds/b1/artifacts/dist"); !isCut(got.err) {
			t.Errorf("%s: %d, %q, %v", name, got.code, got.body, got.err)
		}
	}
	w := withLeftovers(t)
	l := &w.rooms.left
	l.leaves(`..\..\evil`, "1")
	l.leaves("C:evil", "2")
	l.leaves("a\nb", "3")
	l.leaves("12:30:00.log", "4")
	l.adds(aLink, "absolute", "/etc")
	l.adds(aLink, "up", "../etc")
	l.adds(aLink, "roundabout", "a/../../etc")
	l.adds(aLink, "roundabout too", "a/..")
	l.adds(aHardLink, "hard", "../etc")
	l.adds(aLink, "own", "C:evil")
	got := w.ask("GET", "/builds/b1/artifacts/dist")
	const want = `-rw-r--r-- ..%5C..%5Cevil 1
-rw-r--r-- C%3Aevil 1
-rw-r--r-- a%0Ab 1
-rw-r--r-- 12:30:00.log 1
Lrwxrwxrwx own -> C:evil
`
	if all := listed(t, got.body); all != want || got.err != nil {
		t.Errorf("it holds\n%swant\n%s%v", all, want, got.err)
	}
}

func TestZipOfTooManyFilesIsNotHeld(t *testing.T) {
	w := withLeftovers(t)
	name := strings.Repeat("n/", 1900)
	for n := range (32<<20)/4000 + 100 {
		w.rooms.left.leaves(fmt.Sprint(name, n), "")
	}
	if got := w.ask("GET", "/builds/b1/artifacts/dist"); !isCut(got.err) {
		t.Errorf("%d %v", got.code, got.err)
	}
}
