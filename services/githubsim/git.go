package githubsim

import (
	"bytes"
	"crypto/sha1" // git's own hash: identity, not security
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// Git's modes of files and symbolic links.
const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeLink       = "120000"
	modeFolder     = "40000"
	modeSubmodule  = "160000"
)

const noCommit = "0000000000000000000000000000000000000000"

type file struct {
	mode    string
	content []byte
	sha     string  // of a submodule, a commit of another repository
	from    *reader // has the content; nil: content has it
	size    int     // with from
}

func (f file) bytes() []byte {
	if f.from == nil || f.mode == modeSubmodule {
		return f.content
	}
	return f.from.blob(f.sha)
}

func (f file) length() int {
	if f.from == nil {
		return len(f.content)
	}
	return f.size
}

func newFile(mode string, content []byte) file {
	if mode == modeFile && bytes.HasPrefix(content, []byte("#!")) {
		mode = modeExecutable
	}
	return file{mode: mode, content: content, sha: hashObject("blob", content)}
}

// A tree holds every file of a commit, by its full path.
type tree map[string]file

// readTree reads a folder. A file that begins with #! is executable even where the file system cannot say so (embed.FS).
func readTree(source fs.FS) (tree, error) {
	files := tree{}
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		mode := modeFile
		if info.Mode()&0o111 != 0 {
			mode = modeExecutable
		}
		files[name] = newFile(mode, content)
		return nil
	})
	return files, err
}

// under returns the files of the folder dir, by their path within it.
func (t tree) under(dir string) tree {
	if dir == "" {
		return t
	}
	found := tree{}
	for name, f := range t {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			found[rest] = f
		}
	}
	return found
}

// entries lists a tree's top level as git orders it: folders compare as if their name ended in a slash.
func (t tree) entries() []treeEntry {
	var list []treeEntry
	folders := map[string]tree{}
	for name, f := range t {
		first, rest, nested := strings.Cut(name, "/")
		if !nested {
			list = append(list, treeEntry{name: name, file: f})
			continue
		}
		if folders[first] == nil {
			folders[first] = tree{}
		}
		folders[first][rest] = f
	}
	for name, files := range folders {
		list = append(list, treeEntry{name: name, folder: files})
	}
	slices.SortFunc(list, func(a, b treeEntry) int { return strings.Compare(a.sortKey(), b.sortKey()) })
	return list
}

func (t tree) hash() string {
	var object bytes.Buffer
	for _, e := range t.entries() {
		mode, sha := e.file.mode, e.file.sha
		if e.folder != nil {
			mode, sha = modeFolder, e.folder.hash()
		}
		writeTreeEntry(&object, mode, e.name, sha)
	}
	return hashObject("tree", object.Bytes())
}

type treeEntry struct {
	name   string
	file   file
	folder tree // nil for a file
}

func (e treeEntry) sortKey() string {
	if e.folder != nil {
		return e.name + "/"
	}
	return e.name
}

// A commit never changes. Its sha is the one git would give it.
type commit struct {
	sha, treeSHA string
	parents      []string
	message      string
	author       *account
	time         time.Time
	since        time.Time // when it came to be known, if that is not time
	files        tree      // see tree
	from         *reader   // has the files; nil: files has them
	order        int       // its place in the order of making: a parent comes before its children
	text         string    // the object itself
	stored       bool      // git has it on disk
}

// tree returns the files, which nobody changes.
func (c *commit) tree() tree {
	if c.from == nil {
		return c.files
	}
	return c.from.tree(c.treeSHA)
}

// known is when the commit came to be known.
func (c *commit) known() time.Time {
	if c.since.IsZero() {
		return c.time
	}
	return c.since
}

func hashObject(kind string, content []byte) string {
	h := sha1.New()
	h.Write(fmt.Appendf(nil, "%s %d\x00", kind, len(content)))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// history is the commits that a repository and its forks share, by sha.
type history map[string]*commit

func (h history) add(c commit) *commit {
	if c.from == nil {
		c.treeSHA = c.files.hash()
	}
	var object strings.Builder
	fmt.Fprintf(&object, "tree %s\n", c.treeSHA)
	for _, parent := range c.parents {
		fmt.Fprintf(&object, "parent %s\n", parent)
	}
	who := fmt.Sprintf("%s <%s> %d +0000", c.author.login, c.author.email(), c.time.Unix())
	fmt.Fprintf(&object, "author %s\ncommitter %s\n\n%s\n", who, who, c.message)
	c.text = object.String()
	c.sha = hashObject("commit", []byte(c.text))
	return h.keep(c)
}

func (h history) keep(c commit) *commit {
	if known := h[c.sha]; known != nil {
		return known
	}
	c.order = len(h)
	h[c.sha] = &c
	return &c
}

// reachable returns sha and all its ancestors.
func (h history) reachable(sha string) map[string]bool {
	seen := map[string]bool{}
	for next := []string{sha}; len(next) > 0; {
		sha, next = next[len(next)-1], next[:len(next)-1]
		if c := h[sha]; c != nil && !seen[sha] {
			seen[sha] = true
			next = append(next, c.parents...)
		}
	}
	return seen
}

// between lists the commits that can be reached from head and not from base, the oldest first.
func (h history) between(base, head string) []*commit {
	known := h.reachable(base)
	var list []*commit
	for sha := range h.reachable(head) {
		if !known[sha] {
			list = append(list, h[sha])
		}
	}
	slices.SortFunc(list, func(a, b *commit) int { return a.order - b.order })
	return list
}

// mergeBase returns the newest common ancestor; nil if there is none. No other common ancestor descends from it, since
// a descendant is newer.
func (h history) mergeBase(a, b string) *commit {
	var newest *commit
	others := h.reachable(b)
	for sha := range h.reachable(a) {
		if c := h[sha]; others[sha] && (newest == nil || c.order > newest.order) {
			newest = c
		}
	}
	return newest
}

// merge applies the changes of head since the merge base to base, file by file. Files that both changed differently are
// conflicts; with any of them there is no merge.
func (h history) merge(base, head string) (merged tree, conflicts []string) {
	var from tree
	if c := h.mergeBase(base, head); c != nil {
		from = c.tree()
	}
	merged = maps.Clone(h[base].tree())
	for _, change := range diff(from, h[head].tree()) {
		ours, kept := merged[change.path]
		switch {
		case kept == change.inNew && ours.same(change.new):
		case kept != change.inOld || !ours.same(change.old):
			conflicts = append(conflicts, change.path)
		case change.inNew:
			merged[change.path] = change.new
		default:
			delete(merged, change.path)
		}
	}
	return merged, conflicts
}

func (f file) same(other file) bool { return f.sha == other.sha && f.mode == other.mode }

// A change is one path that differs between two trees.
type change struct {
	path         string
	old, new     file
	inOld, inNew bool
}

func diff(from, to tree) []change {
	var changes []change
	for name, f := range to {
		if old, ok := from[name]; !ok || !old.same(f) {
			changes = append(changes, change{path: name, old: old, new: f, inOld: ok, inNew: true})
		}
	}
	for name, f := range from {
		if _, ok := to[name]; !ok {
			changes = append(changes, change{path: name, old: f, inOld: true})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return strings.Compare(a.path, b.path) })
	return changes
}

func (c change) status() string {
	switch {
	case !c.inOld:
		return "added"
	case !c.inNew:
		return "removed"
	}
	return "modified"
}

// lines counts added and removed lines by their content: a line that was moved counts as neither.
func (c change) lines() (added, removed int) {
	count := map[string]int{}
	for line := range bytes.Lines(c.new.bytes()) {
		count[string(line)]++
	}
	for line := range bytes.Lines(c.old.bytes()) {
		count[string(line)]--
	}
	for _, n := range count {
		added += max(n, 0)
		removed += max(-n, 0)
	}
	return added, removed
}

func lines(changes []change) (added, removed int) {
	for _, c := range changes {
		a, r := c.lines()
		added, removed = added+a, removed+r
	}
	return added, removed
}
