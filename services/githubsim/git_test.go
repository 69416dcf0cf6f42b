package githubsim

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

// The hashes are those of git 2.39 for the same files, author and time.
func TestHashesAreGits(t *testing.T) {
	files := tree{
		"a/x": newFile(modeFile, []byte("hi\n")), "b/y": newFile(modeFile, []byte("b\n")),
		"b.sh": newFile(modeFile, []byte("#!/bin/sh\n")), "l": newFile(modeLink, []byte("a/x")),
	}
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	c := history{}.add(commit{files: files, author: &account{id: 1, login: "octocat"}, time: at, message: "First"})
	if c.treeSHA != "3ba1c9c31e400fdc50143d739fdb1f272e83f9ff" {
		t.Errorf("got tree %s", c.treeSHA)
	}
	if c.sha != "0815119aec62f29ed34e09e64e1c4a2b855f8b7d" {
		t.Errorf("got commit %s", c.sha)
	}
	if empty := (tree{}).hash(); empty != "4b825dc642cb6eb9a060e54bf8d69288fbee4904" {
		t.Errorf("got empty tree %s", empty)
	}
}

func TestFoldersKeepTheirModes(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "binary": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	onDisk, err := readTree(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if onDisk["plain"].mode != modeFile || onDisk["binary"].mode != modeExecutable {
		t.Errorf("got modes %v", onDisk)
	}
	embedded, err := readTree(fstest.MapFS{"ci/run": {Data: []byte("#!/bin/sh\n"), Mode: 0o444}})
	if err != nil {
		t.Fatal(err)
	}
	if embedded["ci/run"].mode != modeExecutable {
		t.Errorf("a script without its bit: got mode %s", embedded["ci/run"].mode)
	}
}

func TestMergeTakesWhatEachSideChanged(t *testing.T) {
	text := func(files map[string]string) tree {
		made := tree{}
		for name, content := range files {
			made[name] = newFile(modeFile, []byte(content))
		}
		return made
	}
	for name, test := range map[string]struct {
		base, ours, theirs map[string]string
		want               map[string]string
		conflicts          []string
	}{
		"apart": {
			base: map[string]string{"a": "1", "b": "1"}, ours: map[string]string{"a": "2", "b": "1"}, theirs: map[string]string{"a": "1", "b": "2"},
			want: map[string]string{"a": "2", "b": "2"},
		},
		"the same twice": {
			base: map[string]string{"a": "1"}, ours: map[string]string{"a": "2"}, theirs: map[string]string{"a": "2"},
			want: map[string]string{"a": "2"},
		},
		"added and removed": {
			base: map[string]string{"a": "1", "b": "1"}, ours: map[string]string{"a": "1", "b": "1", "c": "1"}, theirs: map[string]string{"b": "1", "d": "1"},
			want: map[string]string{"b": "1", "c": "1", "d": "1"},
		},
		"both removed": {
			base: map[string]string{"a": "1", "b": "1"}, ours: map[string]string{"b": "1"}, theirs: map[string]string{"b": "1"},
			want: map[string]string{"b": "1"},
		},
		"differently": {
			base: map[string]string{"a": "1"}, ours: map[string]string{"a": "2"}, theirs: map[string]string{"a": "3"}, conflicts: []string{"a"},
		},
		"changed and removed": {
			base: map[string]string{"a": "1"}, ours: map[string]string{"a": "2"}, theirs: map[string]string{}, conflicts: []string{"a"},
		},
		"removed and changed": {
			base: map[string]string{"a": "1"}, ours: map[string]string{}, theirs: map[string]string{"a": "2"}, conflicts: []string{"a"},
		},
		"both added": {
			base: map[string]string{}, ours: map[string]string{"a": "1"}, theirs: map[string]string{"a": "2"}, conflicts: []string{"a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, by := history{}, &account{login: "octocat"}
			base := h.add(commit{files: text(test.base), author: by, message: "base"})
			ours := h.add(commit{files: text(test.ours), author: by, message: "ours", parents: []string{base.sha}})
			theirs := h.add(commit{files: text(test.theirs), author: by, message: "theirs", parents: []string{base.sha}})
			merged, conflicts := h.merge(ours.sha, theirs.sha)
			if !slices.Equal(conflicts, test.conflicts) {
				t.Fatalf("got conflicts %v, want %v", conflicts, test.conflicts)
			}
			if conflicts == nil && !maps.EqualFunc(merged, text(test.want), file.same) {
				t.Errorf("got %v, want %v", merged, test.want)
			}
		})
	}
}

// A promotion merges main into production again and again: the merge base is the last tip that was promoted.
func TestMergeBaseAfterRepeatedMerges(t *testing.T) {
	h, by := history{}, &account{login: "octocat"}
	add := func(message string, parents ...string) string {
		return h.add(commit{author: by, message: message, parents: parents, files: tree{}}).sha
	}
	root := add("root")
	feature := add("feature, begun early", root)
	promoted := add("main, promoted", root)
	production := add("production", root, promoted)
	main := add("main, with the feature", promoted, feature)
	if base := h.mergeBase(production, main); base.sha != promoted {
		t.Errorf("got merge base %q, want %q", base.message, h[promoted].message)
	}
	var ahead []string
	for _, c := range h.between(production, main) {
		ahead = append(ahead, c.message)
	}
	if want := []string{"feature, begun early", "main, with the feature"}; !slices.Equal(ahead, want) {
		t.Errorf("got %q, want %q", ahead, want)
	}
	if h.mergeBase(add("unrelated"), main) != nil {
		t.Error("unrelated histories have a merge base")
	}
}
