package forgexec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// A file of the pack that is too large, in no pack, or in the repository is refused.
func TestPackedFilesOfACheckout(t *testing.T) {
	dir, name := manyDeltas(t)
	blob := gitIn(t, dir, "rev-parse", "HEAD:text")
	read := func(suffix string) string {
		content, err := os.ReadFile(name + suffix)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	packed := func(name string) entry {
		e := file(name, "")
		e.header.Linkname = blob
		return e
	}
	index, content := file("git/objects/pack/p.idx", read(packIndexSuffix)), file("git/objects/pack/p.pack", read(packSuffix))
	workspace, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, index, packed("tree/text"), packed("tree/folder/text"), content))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text", "folder/text"} {
		content, err := os.ReadFile(filepath.Join(workspace, name))
		if err != nil || string(content) != gitIn(t, dir, "cat-file", "blob", blob)+"\n" {
			t.Errorf("%s has %d bytes, %v", name, len(content), err)
		}
	}
	small := sourceLimits()
	small.size = 1000
	absent := packed("tree/text")
	absent.header.Linkname = strings.Repeat("1", 40)
	unnamed := packed("tree/text")
	unnamed.header.Linkname = "../text"
	for name, c := range map[string]struct {
		limits  limits
		entries []entry
		says    string
	}{
		"too large":           {small, []entry{index, packed("tree/text"), content}, "larger than"},
		"no pack":             {sourceLimits(), []entry{index, packed("tree/text")}, "whose content is in no pack"},
		"no index":            {sourceLimits(), []entry{packed("tree/text"), content}, "without its index"},
		"after the pack":      {sourceLimits(), []entry{index, content, packed("tree/text")}, "whose content is in no pack"},
		"in the repository":   {sourceLimits(), []entry{index, packed("git/config"), content}, "whose content is in no pack"},
		"no such object":      {sourceLimits(), []entry{index, absent, content}, "the pack lacks 1111"},
		"no object's name":    {sourceLimits(), []entry{index, unnamed, content}, "whose content is in no pack"},
		"twice":               {sourceLimits(), []entry{index, packed("tree/text"), packed("tree/text"), content}, "twice"},
		"and a link":          {sourceLimits(), []entry{index, packed("tree/text"), symlink("tree/text", "/tmp/escape"), content}, "twice"},
		"and a link later":    {sourceLimits(), []entry{index, packed("tree/text"), content, symlink("tree/text", "/tmp/escape")}, "twice"},
		"through a link":      {sourceLimits(), []entry{symlink("tree/link", "/tmp"), index, packed("tree/link/escape"), content}, "both as a folder"},
		"a folder, too":       {sourceLimits(), []entry{index, packed("tree/text"), packed("tree/text/escape"), content}, "twice"},
		"a pack that is none": {sourceLimits(), []entry{index, packed("tree/text"), file("git/objects/pack/p.pack", "PACK")}, "not as git writes it"},
	} {
		_, parent, err := unpackIn(t, c.limits, checkoutOf(t, c.entries...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
		wantNothingOutside(t, parent, filepath.Join(parent, "workspace"))
	}
}

// packedCheckout is what git checks out of the last commit, as config sends it.
func packedCheckout(t *testing.T, dir string) []entry {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	read := func(name string) string {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	index := filepath.Join(t.TempDir(), "index")
	gitIn(t, dir, "-c", "index.version=2", "read-tree", "--index-output="+index, "HEAD")
	pack := "git/objects/pack/" + strings.TrimSuffix(filepath.Base(packs[0]), packSuffix)
	repository := []entry{
		folder("git/refs/"), file("git/HEAD", gitIn(t, dir, "rev-parse", "HEAD")+"\n"), file("git/config", read(filepath.Join(dir, ".git/config"))),
		file(pack+packIndexSuffix, read(strings.TrimSuffix(packs[0], packSuffix)+packIndexSuffix)),
	}
	var others []entry
	for line := range strings.SplitSeq(gitIn(t, dir, "ls-tree", "-r", "-z", "HEAD"), "\x00") {
		about, name, found := strings.Cut(line, "\t")
		if !found {
			continue
		}
		words := strings.Fields(about)
		if words[0] == "120000" {
			others = append(others, symlink("tree/"+name, gitIn(t, dir, "cat-file", "blob", words[2])))
			continue
		}
		e := file("tree/"+name, "")
		e.header.Linkname = words[2]
		if words[0] == "100755" {
			e.header.Mode = 0o755
		}
		repository = append(repository, e)
	}
	return append(append(repository, file(pack+packSuffix, read(packs[0])), file("git/index", read(index))), others...)
}

// unusual is a repository with most of what git keeps.
func unusual(t *testing.T) (dir string) {
	t.Helper()
	dir, _ = manyDeltas(t)
	for name, content := range map[string]string{
		"folder/script": "#!/bin/sh\n", strings.Repeat("long/", 60) + "name": "x", "br\xe4ve": "latin\n", "line\nfeed": "x", "copy of text": "",
		"crlf": "one\r\ntwo\r\n", ".gitattributes": "* -text\n",
	} {
		if name == "copy of text" {
			text, err := os.ReadFile(filepath.Join(dir, "text"))
			if err != nil {
				t.Fatal(err)
			}
			content = string(text)
		}
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "folder/script"), 0o755), os.Symlink("/etc/passwd", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "-m", "unusual files")
	gitIn(t, dir, "repack", "-adfq", "--depth=50", "--window=60")
	return dir
}

// Git finds what it would have checked out itself, and need not read it again.
func TestPackedCheckoutIsWhatGitChecksOut(t *testing.T) {
	dir := unusual(t)
	workspace, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, packedCheckout(t, dir)...))
	if err != nil {
		t.Fatal(err)
	}
	if status := gitIn(t, workspace, "status", "--porcelain"); status != "" {
		t.Errorf("status: %q", status)
	}
	if changed := gitIn(t, workspace, "diff-files", "--name-only"); changed != "" {
		t.Errorf("git has to read %q", changed)
	}
	gitIn(t, workspace, "fsck", "--strict")
	clone := filepath.Join(t.TempDir(), "clone")
	gitIn(t, dir, "clone", "-q", dir, clone)
	if got, want := treeOf(t, workspace), treeOf(t, clone); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// treeOf are the names, modes and contents of all files.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(at string, d os.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, at)
		if name == ".git" {
			return filepath.SkipDir
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			content = []byte(target)
		case info.Mode().IsRegular():
			if content, err = os.ReadFile(at); err != nil {
				return err
			}
		}
		fmt.Fprintf(&text, "%v %q %d %s\n", info.Mode(), name, len(content), hashOf(content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// Wherever a checkout breaks off, that is said, and not what lacks because of it.
func TestPackedCheckoutThatBreaksOff(t *testing.T) {
	whole := checkoutOf(t, packedCheckout(t, unusual(t))...)
	for n := range 50 {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		cut := io.MultiReader(bytes.NewReader(whole[:len(whole)*n/50]), iotest.ErrReader(errInterrupted))
		if _, _, err := unpack(root, cut, sourceLimits()); !errors.Is(err, errInterrupted) {
			t.Errorf("after %d of 50 parts: %v", n, err)
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	}
}
