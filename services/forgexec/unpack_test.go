package forgexec

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type entry struct {
	header  tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func folder(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, ""}
}

func hardLink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func special(kind byte, name string) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Mode: 0o644}, ""}
}

func tarball(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buffer bytes.Buffer
	archive(t, gzip.NewWriter(&buffer), tar.FormatUnknown, entries)
	return buffer.Bytes()
}

// archive writes entries as a tar, and closes what it is written to.
func archive(t testing.TB, to io.WriteCloser, format tar.Format, entries []entry) {
	t.Helper()
	w := tar.NewWriter(to)
	for _, e := range entries {
		e.header.Size, e.header.Format = int64(len(e.content)), format
		if err := w.WriteHeader(&e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), to.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSourceIsUnpackedWithoutItsTopFolder(t *testing.T) {
	script := file("top/bin/run", "#!/bin/sh\n")
	script.header.Mode = 0o775
	long := strings.Repeat("long/", 60) + "name"
	workspace, _, err := unpackIn(t, sourceLimits(), tarball(t,
		entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "3f2a91c"}}, ""},
		folder("top/"), folder("top/bin/"), script, file("top/no/folder/entry", "x"), file("top/"+long, "deep"),
		symlink("top/bin/link", "../no/folder/entry"), symlink("top/dangling", "not/there"), symlink("top/circle", "circle"),
		symlink("top/tofolder", "no/folder"), hardLink("top/same", "top/bin/run")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"bin/run": "#!/bin/sh\n", "no/folder/entry": "x", long: "deep", "bin/link": "x", "tofolder/entry": "x", "same": "#!/bin/sh\n",
	} {
		if got, err := os.ReadFile(filepath.Join(workspace, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]fs.FileMode{"bin/run": 0o755, "no/folder/entry": 0o644} {
		if info, err := os.Stat(filepath.Join(workspace, name)); err != nil || info.Mode().Perm()|0o022 != want|0o022 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// git makes a link whatever it points at, and so do we: repositories have such.
func TestSymbolicLinksAreMadeAsGitMakesThem(t *testing.T) {
	links := map[string]string{
		"null": "/dev/null", "passwd": "/etc/passwd", "up": "../..", "beside": "../escape", "root": "/",
		"a/b/c/climb": "../../../../..", "dangling": "not/there", "circle": "circle", "chain": "up", "own": ".",
	}
	var entries []entry
	for _, name := range slices.Sorted(maps.Keys(links)) {
		entries = append(entries, symlink("top/"+name, links[name]))
	}
	workspace, parent, err := unpackIn(t, sourceLimits(), tarball(t, append(entries, file("top/last", "x"))...))
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range links {
		if got, err := os.Readlink(filepath.Join(workspace, name)); err != nil || got != target {
			t.Errorf("%s: a link to %q, %v, want %q", name, got, err, target)
		}
	}
	wantNothingOutside(t, parent, workspace)
}

// A source that comes again is unpacked into an emptied workspace. Emptying must
// not follow what the first one has made.
func TestASourceThatComesAgainGoesThroughNoLink(t *testing.T) {
	beside := filepath.Join(t.TempDir(), "beside")
	if err := errors.Join(os.Mkdir(beside, 0o755), os.WriteFile(filepath.Join(beside, "kept"), []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w := &workspace{path: t.TempDir()}
	for _, source := range [][]entry{
		{symlink("top/l", beside), symlink("top/f", filepath.Join(beside, "kept"))},
		{file("top/l/kept", "theirs"), file("top/f", "theirs")},
		{symlink("top/l", beside), symlink("top/f", filepath.Join(beside, "kept"))},
	} {
		if _, _, err := unpackInto(w, bytes.NewReader(tarball(t, source...))); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(beside, "kept")); err != nil || string(got) != "mine" {
		t.Errorf("what lies beside the workspace: %q, %v", got, err)
	}
}

func TestHostileSourcesAreRefused(t *testing.T) {
	small := limits{size: 10_000, entries: 5}
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"parent", []entry{file("top/../../escape", "x")}, "outside of the workspace"},
		{"parent inside", []entry{file("top/a/../b", "x")}, "outside of the workspace"},
		{"only parents", []entry{file("../escape", "x")}, "outside of the workspace"},
		{"absolute", []entry{file("/tmp/escape", "x")}, "outside of the workspace"},
		{"the workspace itself", []entry{file(".", "x")}, "outside of the workspace"},
		{"two tops", []entry{file("top/a", "x"), file("other/b", "x")}, `"other/b" outside of its one folder "top"`},
		{"no folder", []entry{file("top", "x")}, "outside of its one folder"},
		{"file through a link", []entry{symlink("top/l", "/tmp"), file("top/l/escape", "x")}, `"l" both as a folder and as something else`},
		{"file through a link inside", []entry{folder("top/d/"), symlink("top/l", "d"), file("top/l/f", "x")}, `"l" both`},
		{"folder over a link", []entry{symlink("top/l", "/tmp"), folder("top/l/")}, `"l" both`},
		{"file over a link", []entry{symlink("top/l", "/tmp/escape"), file("top/l", "x")}, `"l" twice`},
		{"link over a file", []entry{file("top/l", "x"), symlink("top/l", "/tmp")}, `"l" twice`},
		{"file through a chain of links", []entry{symlink("top/a", "b"), symlink("top/b", "/tmp"), file("top/a/escape", "x")}, `"a" both`},
		{"file through a link to the parent", []entry{symlink("top/l", ".."), file("top/l/escape", "x")}, `"l" both`},
		{"file far below a link", []entry{symlink("top/l", ".."), file("top/l/../l/escape", "x")}, "outside of the workspace"},
		{"folder below a link", []entry{symlink("top/l", ".."), folder("top/l/escape/")}, `"l" both`},
		{"link below a link", []entry{symlink("top/l", ".."), symlink("top/l/escape", "/etc")}, `"l" both`},
		{"hard link below a link", []entry{file("top/f", "x"), symlink("top/l", ".."), hardLink("top/l/escape", "top/f")}, `"l" both`},
		{"hard link over a link", []entry{file("top/f", "x"), symlink("top/l", "/tmp/escape"), hardLink("top/l", "top/f")}, `"l" twice`},
		{"file through a link to nothing", []entry{symlink("top/l", "../escape"), file("top/l", "x")}, `"l" twice`},
		{"file over a hard link", []entry{file("top/f", "x"), hardLink("top/l", "top/f"), file("top/l", "y")}, `"l" twice`},
		{"link over a folder", []entry{folder("top/d/"), symlink("top/d", "/tmp"), file("top/d/escape", "x")}, `"d" twice`},
		{"link over a folder with files", []entry{file("top/d/f", "x"), symlink("top/d", "/tmp")}, `"d" twice`},
		{"the workspace as a link", []entry{symlink("top", "/tmp"), file("top/escape", "x")}, "outside of its one folder"},
		{"a link of another spelling", []entry{symlink("top/l", "/tmp"), file("top/./l//escape", "x")}, `"l" both`},
		{"folder below a file", []entry{file("top/f", "x"), file("top/f/g", "x")}, `"f" both`},
		{"hard link outside", []entry{hardLink("top/l", "/etc/passwd")}, "outside of the workspace"},
		{"hard link to parent", []entry{hardLink("top/l", "top/../../x")}, "outside of the workspace"},
		{"hard link through a link", []entry{symlink("top/e", "/etc"), hardLink("top/l", "top/e/passwd")}, "which is no file before it"},
		{"hard link through a link inside", []entry{file("top/d/f", "x"), symlink("top/e", "d"), hardLink("top/l", "top/e/f")}, "which is no file before it"},
		{"hard link to a link", []entry{folder("top/a/"), symlink("top/a/l", ".."), hardLink("top/l", "top/a/l")}, "which is no file before it"},
		{"hard link to nothing", []entry{hardLink("top/l", "top/x")}, "which is no file before it"},
		{"device", []entry{special(tar.TypeBlock, "top/sda")}, "no file, folder or link"},
		{"character device", []entry{special(tar.TypeChar, "top/null")}, "no file, folder or link"},
		{"fifo", []entry{special(tar.TypeFifo, "top/fifo")}, "no file, folder or link"},
		{"huge file", []entry{file("top/f", strings.Repeat("x", 10_001))}, "larger than"},
		{"huge in sum", []entry{file("top/f", strings.Repeat("x", 6000)), file("top/g", strings.Repeat("x", 6000))}, "larger than"},
		{"many", []entry{file("top/1", ""), file("top/2", ""), file("top/3", ""), file("top/4", ""), file("top/5", ""), file("top/6", "")}, "more than 5"},
		{"many implied", []entry{file("top/1/2/3/4/5/6", "")}, "more than 5"},
		{"a name of megabytes", []entry{file("top/"+strings.Repeat("d/", 100_000)+"f", "")}, "a name of more than 4096 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			most := small
			if strings.Contains(c.name, "name of megabytes") {
				most = sourceLimits() // its headers are what is large
			}
			workspace, parent, err := unpackIn(t, most, tarball(t, c.entries...))
			if _, ok := errors.AsType[refusal](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a refusal with %q", err, c.want)
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("no text for people: %s", err)
			}
			wantNothingOutside(t, parent, workspace)
		})
	}
}

func TestAStreamOfNothingButHeadersIsRefused(t *testing.T) {
	var many []entry
	for range 100 {
		many = append(many, folder("top/"))
	}
	_, _, err := unpackIn(t, limits{size: 1000, entries: 10}, tarball(t, many...))
	if _, ok := errors.AsType[refusal](err); !ok {
		t.Errorf("got %v", err)
	}
}

// A sparse file says how large it is and brings next to nothing; what is too long
// for the system is no reason to say nothing.
func TestOtherHostileSourcesAreRefusedInTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		source []byte
		want   string
	}{
		{"a sparse file in PAX", sparse(t), "larger than 2048 MiB"},
		{"a long name", tarball(t, file("top/"+strings.Repeat("n", 300), "x")), "file name too long"},
		{"a bomb behind the end", append(tarball(t, file("top/f", "x")), bomb(t)...), "larger than 0 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			most := sourceLimits()
			if c.name == "a bomb behind the end" {
				most = limits{size: 1 << 19, entries: 5}
			}
			workspace, parent, err := unpackIn(t, most, c.source)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			wantNothingOutside(t, parent, workspace)
		})
	}
}

// sparse is a file of a terabyte, by GNU's format 1.0 in PAX: its map says that
// nothing of it is there.
func sparse(t *testing.T) []byte {
	t.Helper()
	var buffer bytes.Buffer
	zipped := gzip.NewWriter(&buffer)
	var records strings.Builder
	for _, record := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=top/sparse", "GNU.sparse.realsize=1099511627776"} {
		length := len(record) + 2 // a blank and a line end
		length += len(strconv.Itoa(length + len(strconv.Itoa(length))))
		fmt.Fprintf(&records, "%d %s\n", length, record)
	}
	const holes = "1\n1099511627776\n0\n" // one extent, of nothing, at the end
	for _, part := range []entry{
		{tar.Header{Typeflag: tar.TypeXHeader, Name: "pax"}, records.String()},
		{tar.Header{Typeflag: tar.TypeReg, Name: "top/GNUSparseFile.0/sparse", Mode: 0o644}, holes + strings.Repeat("\x00", 512-len(holes))},
	} {
		part.header.Size = int64(len(part.content))
		block := make([]byte, 512)
		copy(block, part.header.Name)
		copy(block[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c", part.header.Mode, 0, 0, part.header.Size, 0, part.header.Typeflag))
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, b := range block {
			sum += int(b)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		padding := make([]byte, (512-len(part.content)%512)%512)
		if _, err := zipped.Write(slices.Concat(block, []byte(part.content), padding)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := zipped.Write(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// bomb is a second gzip stream, which readers take for more of the first.
func bomb(t *testing.T) []byte {
	t.Helper()
	var buffer bytes.Buffer
	zipped := gzip.NewWriter(&buffer)
	for range 64 {
		if _, err := zipped.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func FuzzUnpack(f *testing.F) {
	for _, entries := range [][]entry{
		{folder("top/"), file("top/a/b", "x"), symlink("top/l", "a/b"), hardLink("top/h", "top/a/b")},
		{symlink("top/l", "../.."), file("top/l/x", "x")},
		{file("/x", "x")},
		{file("../x", "x")},
		{special(tar.TypeFifo, "top/f")},
	} {
		packed := tarball(f, entries...)
		raw, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			f.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(raw); err != nil {
			f.Fatal(err)
		}
		f.Add(plain.Bytes())
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		var packed bytes.Buffer
		zipped := gzip.NewWriter(&packed)
		if _, err := zipped.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := zipped.Close(); err != nil {
			t.Fatal(err)
		}
		workspace, parent, _ := unpackIn(t, limits{size: 1 << 20, entries: 1000}, packed.Bytes())
		wantNothingOutside(t, parent, workspace)
	})
}

// unpackIn unpacks into a workspace in a folder that holds nothing else.
func unpackIn(t *testing.T, most limits, source []byte) (workspace, parent string, err error) {
	t.Helper()
	parent, err = filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	workspace = filepath.Join(parent, "workspace")
	if err := os.Mkdir(workspace, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(workspace)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, _, err = unpack(root, bytes.NewReader(source), most)
	return workspace, parent, err
}

func wantNothingOutside(t *testing.T, parent, workspace string) {
	t.Helper()
	for _, dir := range []string{parent, "/tmp"} {
		if _, err := os.Lstat(filepath.Join(dir, "escape")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("written outside of the workspace: %s/escape (%v)", dir, err)
		}
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(workspace) {
		t.Errorf("beside the workspace: %v, %v", entries, err)
	}
}
