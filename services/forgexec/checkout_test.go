package forgexec

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// checkoutOf is entries as config sends a checkout.
func checkoutOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buffer bytes.Buffer
	zipped, err := zstd.NewWriter(&buffer)
	if err != nil {
		t.Fatal(err)
	}
	archive(t, zipped, tar.FormatGNU, entries)
	return buffer.Bytes()
}

func gitIn(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// committed is the checkout of a commit of some files, and its repository.
func committed(t *testing.T, files map[string]string) []entry {
	t.Helper()
	dir := t.TempDir()
	gitIn(t, dir, "init", "-q")
	var entries []entry
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, file("tree/"+name, content))
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	entries = append(entries, symlink("tree/link", "/etc/passwd"))
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "-m", "a change")
	if err := os.Remove(filepath.Join(dir, ".git/index")); err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, "-c", "index.version=2", "read-tree", "HEAD")
	err := filepath.WalkDir(filepath.Join(dir, ".git"), func(path string, d fs.DirEntry, err error) error {
		name := "git" + strings.TrimPrefix(path, filepath.Join(dir, ".git"))
		if err != nil || strings.HasPrefix(name, "git/hooks") {
			return err
		}
		if d.IsDir() {
			entries = append(entries, folder(name+"/"))
			return nil
		}
		content, err := os.ReadFile(path)
		entries = append(entries, file(name, string(content)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestCheckoutIsARepositoryWithoutChanges(t *testing.T) {
	entries := committed(t, map[string]string{
		"a": "one\n", "folder/b": "two\n", strings.Repeat("long/", 60) + "name": "x", "br\xe4ve": "latin\n", "empty": "",
	})
	dir, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	if status := gitIn(t, dir, "status", "--porcelain"); status != "" {
		t.Errorf("status: %q", status)
	}
	// This one compares what the index says, and reads no file.
	if changed := gitIn(t, dir, "diff-files", "--name-only"); changed != "" {
		t.Errorf("git has to read %q", changed)
	}
	gitIn(t, dir, "fsck", "--strict")
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed := gitIn(t, dir, "diff-files", "--name-only"); changed != "a" {
		t.Errorf("changed: %q", changed)
	}
}

func TestHostileCheckoutsAreRefused(t *testing.T) {
	for name, entries := range map[string][]entry{
		"a hook in the tree":        {file("tree/.git/hooks/post-checkout", "evil")},
		"a repository in a folder":  {file("tree/a/.git/config", "evil")},
		"another case":              {file("tree/.GiT/config", "evil")},
		"its short name on Windows": {file("tree/GIT~1/config", "evil")},
		"dots at the end":           {file("tree/.git. . /config", "evil")},
		"a stream of NTFS":          {file("tree/.git::$INDEX_ALLOCATION/config", "evil")},
		"what nobody sees":          {file("tree/.g\u200cit/config", "evil")},
		"a link for a repository":   {symlink("tree/.git", "elsewhere")},
		"a way up":                  {file("tree/../git/config", "evil")},
		"out of the repository":     {file("git/../../x", "evil")},
		"an absolute name":          {file("/tree/x", "evil")},
		"another folder":            {file("hooks/x", "evil")},
		"a link in the repository":  {symlink("git/objects", "/")},
		"through a link":            {symlink("tree/a", "/tmp"), file("tree/a/x", "evil")},
		"a file for a folder":       {file("tree/a", "x"), file("tree/a/x", "evil")},
		"twice":                     {file("tree/a", "x"), file("tree/a", "evil")},
		"a device":                  {special(tar.TypeChar, "tree/null")},
		"a gitfile out of the tree": {file("gitfile/lib", "gitdir: ../../elsewhere\n")},
		"a gitfile to .git itself":  {file("gitfile/lib", "gitdir: ../.git\n")},
		"a gitfile to the tree":     {file("gitfile/lib", "gitdir: ../evil\n")},
		"a gitfile around":          {file("gitfile/lib", "gitdir: ../.git/modules/../../evil\n")},
		"a gitfile of two lines":    {file("gitfile/lib", "gitdir: ../.git/modules/lib\nx\n")},
		"a gitfile in .git":         {file("gitfile/.git/lib", "gitdir: ../../.git/modules/lib\n")},
		"an absolute gitfile":       {file("gitfile/lib", "gitdir: /.git/modules/lib\n")},
		"a gitfile that is a link":  {symlink("gitfile/lib", "/etc")},
	} {
		_, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, entries...))
		if _, ok := errors.AsType[refusal](err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestNamesThatOnlyLookAlikeAreFine(t *testing.T) {
	dir, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, file("tree/.gitignore", "x"), file("tree/.github/a", "x"), file("tree/git/config", "x"), file("tree/a.git/config", "x")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "git/config")); err != nil {
		t.Error(err)
	}
}

func TestCheckoutIsBounded(t *testing.T) {
	most := limits{size: 100_000, entries: 10, repository: 200_000}
	for name, c := range map[string]struct {
		entries []entry
		refused bool
	}{
		"within":               {[]entry{file("tree/a", strings.Repeat("x", 100_000)), file("git/pack", strings.Repeat("x", 200_000))}, false},
		"too large a tree":     {[]entry{file("tree/a", strings.Repeat("x", 100_001))}, true},
		"too large a history":  {[]entry{file("git/a", strings.Repeat("x", 200_001))}, true},
		"too many small files": {[]entry{file("git/a/b/c/d/e/f/g/h/i/j/k", "")}, true},
	} {
		_, _, err := unpackIn(t, most, checkoutOf(t, c.entries...))
		if _, refused := errors.AsType[refusal](err); refused != c.refused {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The index comes from config; what is wrong with it must not become a panic.
func TestMalformedIndexIsAnError(t *testing.T) {
	entries := committed(t, map[string]string{"a": "one\n"})
	for i, e := range entries {
		if e.header.Name != "git/index" {
			continue
		}
		for cut := range len(e.content) {
			entries[i].content = e.content[:cut]
			if _, _, err := unpackIn(t, sourceLimits(), checkoutOf(t, entries...)); err == nil {
				t.Errorf("%s is taken for an index", hex.EncodeToString([]byte(e.content[:cut])))
			}
		}
	}
}
