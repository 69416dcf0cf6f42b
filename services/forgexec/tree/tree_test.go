package tree_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protodelim"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/forgexec/tree"
)

const most = 1000

var then = time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)

// grow makes a folder with all that can be kept in it.
func grow(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "kept")
	write := func(name, text string, mode fs.FileMode) {
		at := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		must(t, os.WriteFile(at, []byte(text), 0o600))
		must(t, os.Chmod(at, mode))
		must(t, os.Chtimes(at, then, then))
	}
	write("a/program", "#!/bin/sh\n", 0o755)
	write("a/b/c/secret", "hidden", 0o600)
	write("empty", "", 0o644)
	write("sealed/module", "read only", 0o444)
	write("z last", strings.Repeat("long", 50_000), 0o640)
	must(t, os.Symlink("/etc/passwd", filepath.Join(root, "a/outside")))
	must(t, os.Symlink("b/c", filepath.Join(root, "a/inside")))
	must(t, os.Link(filepath.Join(root, "empty"), filepath.Join(root, "zero")))
	must(t, os.Mkdir(filepath.Join(root, "hollow"), 0o700))
	for _, name := range []string{"sealed", "hollow"} {
		must(t, os.Chtimes(filepath.Join(root, name), then, then))
	}
	must(t, os.Chmod(filepath.Join(root, "sealed"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root, "sealed"), 0o755) })
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// told is what lies below a folder, in words.
func told(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(at string, entry fs.DirEntry, err error) error {
		must(t, err)
		info, err := entry.Info()
		must(t, err)
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(at)
			must(t, err)
			text += " " + info.ModTime().UTC().String() + " " + string(content)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			must(t, err)
			text += " " + target
		}
		name, _ := filepath.Rel(root, at)
		all[name] = text
		return nil
	}))
	return all
}

// moved lists, reads and makes anew.
func moved(t *testing.T, from, to []string) error {
	t.Helper()
	listing, err := tree.List(from, most)
	must(t, err)
	content, err := listing.Content()
	must(t, err)
	defer content.Close()
	return tree.Make(to, listing.Index, content)
}

func TestWhatIsMadeIsWhatWasListed(t *testing.T) {
	from, to := grow(t), filepath.Join(t.TempDir(), "not/yet/there")
	must(t, moved(t, []string{from}, []string{to}))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(to, "sealed"), 0o755) })
	if diff := cmp.Diff(told(t, from), told(t, to)); diff != "" {
		t.Error(diff)
	}
	one, err := os.Stat(filepath.Join(to, "empty"))
	must(t, err)
	other, err := os.Stat(filepath.Join(to, "zero"))
	must(t, err)
	if !os.SameFile(one, other) {
		t.Error("a hard link became a file of its own")
	}
}

func TestPathsAreKeptApartAndMayBeFilesOrAbsent(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(from, "file"), []byte("one"), 0o644))
	must(t, os.Mkdir(filepath.Join(from, "folder"), 0o755))
	must(t, os.WriteFile(filepath.Join(from, "folder", "file"), []byte("two"), 0o644))
	must(t, moved(t,
		[]string{filepath.Join(from, "file"), filepath.Join(from, "absent"), filepath.Join(from, "folder")},
		[]string{filepath.Join(to, "one"), filepath.Join(to, "two"), filepath.Join(to, "three")}))
	entries, err := os.ReadDir(to)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("made %v", entries)
	}
	for name, want := range map[string]string{"one": "one", "three/file": "two"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, error %v", name, got, err)
		}
	}
}

func TestWhatIsThereStaysButForWhatHasTheSameName(t *testing.T) {
	from, to, outside := grow(t), t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(to, "hollow"), 0o755))
	must(t, os.WriteFile(filepath.Join(to, "hollow", "mine"), []byte("mine"), 0o644))
	must(t, os.WriteFile(filepath.Join(to, "empty"), []byte("old"), 0o444))
	must(t, os.Symlink(outside, filepath.Join(to, "a")))
	must(t, os.Symlink(filepath.Join(outside, "victim"), filepath.Join(to, "z last")))
	must(t, moved(t, []string{from}, []string{to}))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(to, "sealed"), 0o755) })
	got := told(t, to)
	if !strings.HasSuffix(got["hollow/mine"], "mine") || strings.Contains(got["empty"], "old") || !strings.HasSuffix(got["a/b/c/secret"], "hidden") {
		t.Errorf("made %v", got)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("something was written through a link: %v, %v", entries, err)
	}
}

func TestFilesAreListedWithTheFoldersAroundThem(t *testing.T) {
	from, to := grow(t), t.TempDir()
	listing, err := tree.ListFiles(from, []string{"a/b/c/secret", "z last", "gone"}, most)
	must(t, err)
	content, err := listing.Content()
	must(t, err)
	defer content.Close()
	must(t, tree.Make([]string{to}, listing.Index, content))
	var names []string
	for name := range told(t, to) {
		names = append(names, name)
	}
	if len(names) != 6 || listing.Files != 2 {
		t.Errorf("made %v of %d files", names, listing.Files)
	}
}

func TestContentCanBePassedOver(t *testing.T) {
	from := grow(t)
	listing, err := tree.List([]string{from}, most)
	must(t, err)
	whole, err := listing.Content()
	must(t, err)
	defer whole.Close()
	want, err := io.ReadAll(whole)
	must(t, err)
	if int64(len(want)) != listing.Size {
		t.Fatalf("%d bytes of %d", len(want), listing.Size)
	}
	for _, c := range [][2]int64{{0, 5}, {3, 10}, {9, 100_000}, {16, 3}, {20_000, 1}, {listing.Size - 1, 1}, {listing.Size, 0}} {
		content, err := listing.Content()
		must(t, err)
		must(t, content.Skip(c[0]))
		got := make([]byte, c[1])
		if _, err := io.ReadFull(content, got); err != nil || !bytes.Equal(got, want[c[0]:c[0]+c[1]]) {
			t.Errorf("%d bytes from %d on are %q, error %v", c[1], c[0], got, err)
		}
		content.Close()
	}
}

func TestWhatChangesWhileItIsReadIsFound(t *testing.T) {
	for name, change := range map[string]func(at string) error{
		"shorter": func(at string) error { return os.Truncate(at, 10) },
		"longer":  func(at string) error { return os.Truncate(at, 1<<20) },
		"gone":    os.Remove,
		"a link":  func(at string) error { return errors.Join(os.Remove(at), os.Symlink("empty", at)) },
	} {
		from := grow(t)
		listing, err := tree.List([]string{from}, most)
		must(t, err)
		must(t, change(filepath.Join(from, "z last")))
		content, err := listing.Content()
		must(t, err)
		if _, err := io.ReadAll(content); !errors.As(err, &tree.ChangedError{}) {
			t.Errorf("%s: error %v", name, err)
		}
		content.Close()
	}
}

func TestTooManyFilesAreAnError(t *testing.T) {
	_, err := tree.List([]string{grow(t)}, 3)
	if !errors.As(err, &tree.TooManyError{}) {
		t.Errorf("error %v", err)
	}
}

// What no listing holds is refused, and nothing of it stays.
func TestHostileListsAreRefusedWithoutATrace(t *testing.T) {
	folder := func(name string) *schedulerv1.FileEntry {
		return &schedulerv1.FileEntry{Type: schedulerv1.FileEntry_TYPE_FOLDER, Name: name, Mode: 0o755}
	}
	file := func(name string) *schedulerv1.FileEntry {
		return &schedulerv1.FileEntry{Type: schedulerv1.FileEntry_TYPE_FILE, Name: name, Mode: 0o644, Size: 1}
	}
	link := func(name, target string, kind schedulerv1.FileEntry_Type) *schedulerv1.FileEntry {
		return &schedulerv1.FileEntry{Type: kind, Name: name, Target: target}
	}
	const symbolic, hard = schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK, schedulerv1.FileEntry_TYPE_HARD_LINK
	for name, list := range map[string][]*schedulerv1.FileEntry{
		"up":                        {folder(""), file("../victim")},
		"up in the middle":          {folder(""), folder("a"), file("a/../../victim")},
		"absolute":                  {folder(""), file("/victim")},
		"itself":                    {folder(""), file(".")},
		"through a link":            {folder(""), link("way", "..", symbolic), file("way/victim")},
		"through a link as folder":  {folder(""), link("way", "..", symbolic), folder("way/sub"), file("way/sub/victim")},
		"into no folder":            {folder(""), file("a/b")},
		"twice":                     {folder(""), folder("a"), folder("a")},
		"another path":              {{Type: schedulerv1.FileEntry_TYPE_FILE, Path: 1, Name: "a"}},
		"a path before the first":   {{Type: schedulerv1.FileEntry_TYPE_FILE, Path: -1}},
		"no type":                   {folder(""), {Name: "a"}},
		"hard link out":             {folder(""), link("a", "../victim", hard)},
		"hard link to a link":       {folder(""), link("a", "../outside", symbolic), link("b", "a", hard)},
		"hard link through a link":  {folder(""), link("a", "..", symbolic), link("b", "a/outside", hard)},
		"hard link before the file": {folder(""), link("b", "c", hard), file("c")},
		"bytes that are missing":    {folder(""), file("a"), file("b"), file("c"), file("d"), file("e"), file("f"), file("g"), file("h"), file("i")},
		"bytes that are too many":   {folder(""), file("a")},
	} {
		around := t.TempDir()
		must(t, os.WriteFile(filepath.Join(around, "outside"), []byte("outside"), 0o644))
		index, err := tree.NewIndex()
		must(t, err)
		for _, entry := range list {
			_, err := protodelim.MarshalTo(index, entry)
			must(t, err)
		}
		must(t, index.Close())
		err = tree.Make([]string{filepath.Join(around, "in")}, index, strings.NewReader("12345678"))
		if err == nil {
			t.Errorf("%s: nothing was refused", name)
		}
		if entries, readErr := os.ReadDir(around); readErr != nil || len(entries) != 1 {
			t.Errorf("%s: there is %v, error %v, after %v", name, entries, readErr, err)
		}
	}
}
