package githubsim

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A store has one network on disk: its objects once, since a fork's commits are found through the repository as well, and
// a bare repository for the refs of each of its repositories.
type store struct {
	folder string
	reader *reader

	mu   sync.Mutex             // held from the look at the repository until its refs are written; guards all below
	has  map[string]bool        // the objects that are written
	refs map[*repository]string // as they were last written
}

// gitConfig is how GitHub serves: every object that it has, whether a ref leads to it or not.
const gitConfig = `[core]
	repositoryformatversion = 0
	bare = true
[uploadpack]
	allowAnySHA1InWant = true
	allowFilter = true
[gc]
	auto = 0
`

func (o *store) objects() string { return filepath.Join(o.folder, "objects") }

// bare is the folder of one repository.
func (o *store) bare(r *repository) string {
	return filepath.Join(o.folder, strconv.FormatInt(r.id, 10)+".git")
}

// A snapshot is what reads show of a repository.
type snapshot struct {
	commits []*commit // those that may be on no disk yet
	tags    []*tag    // annotated ones, likewise
	refs    map[string]string
	head    string // the default branch
}

// snapshot takes what a reader may have of r by now. What is late is left out, objects included.
func (s *gitAPI) snapshot(r *repository) snapshot {
	now := snapshot{refs: map[string]string{}, head: "refs/heads/" + r.defaultBranch}
	for _, c := range r.commits {
		if !c.stored && !s.late(c.known()) {
			now.commits = append(now.commits, c)
		}
	}
	for ref := range r.refs {
		annotated := r.annotated[ref]
		switch at := s.readRef(r, ref); {
		case at == "", annotated != nil && s.late(annotated.time):
		case annotated != nil:
			now.refs[ref], now.tags = annotated.sha, append(now.tags, annotated)
		default:
			now.refs[ref] = at
		}
	}
	return now
}

// readRef is where reads show a ref; empty where they do not.
func (s *gitAPI) readRef(r *repository, ref string) string {
	rest, ofPull := strings.CutPrefix(ref, "refs/pull/")
	if !ofPull {
		if at := s.read(r, ref); at != nil {
			return at.sha
		}
		return ""
	}
	number, which, _ := strings.Cut(rest, "/")
	n, _ := strconv.Atoi(number) // the sim's own refs have one
	p := s.readPull(r.pull(n))
	if p == nil {
		return ""
	}
	at := r.refs[ref]
	if which == "head" {
		at = p.head.sha
	}
	if c := r.commits[at]; c == nil || s.late(c.known()) {
		return ""
	}
	return at
}

// refresh writes what a reader may have of r by now, and returns the folder to serve from.
func (s *gitAPI) refresh(o *store, r *repository) (folder string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.mu.Lock()
	now := s.snapshot(r)
	s.mu.Unlock()
	if err := o.make(r); err != nil {
		return "", err
	}
	for _, c := range now.commits {
		if err := o.addCommit(c); err != nil {
			return "", err
		}
	}
	for _, one := range now.tags {
		if one.text == "" { // git made it
			continue
		}
		if err := o.add("tag", one.sha, []byte(one.text)); err != nil {
			return "", err
		}
	}
	if err := o.writeRefs(r, now); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range now.commits {
		c.stored = true
	}
	return o.bare(r), nil
}

// make makes the bare repository where there is none yet.
func (o *store) make(r *repository) error {
	if _, made := o.refs[r]; made {
		return nil
	}
	o.refs[r] = ""
	return makeBare(o.bare(r))
}

// makeBare makes a repository without objects and refs.
func makeBare(folder string) error {
	return errors.Join(
		os.MkdirAll(filepath.Join(folder, "objects"), 0o700),
		os.MkdirAll(filepath.Join(folder, "refs"), 0o700),
		os.WriteFile(filepath.Join(folder, "config"), []byte(gitConfig), 0o600),
		os.WriteFile(filepath.Join(folder, "HEAD"), []byte("ref: refs/heads/main\n"), 0o600),
	)
}

// writeRefs has git see these refs and no others. One rename changes all of them.
func (o *store) writeRefs(r *repository, now snapshot) error {
	var packed strings.Builder
	packed.WriteString("# pack-refs with: sorted \n")
	for _, ref := range slices.Sorted(maps.Keys(now.refs)) {
		fmt.Fprintf(&packed, "%s %s\n", now.refs[ref], ref)
	}
	if o.refs[r] == packed.String()+now.head {
		return nil
	}
	if err := replace(filepath.Join(o.bare(r), "packed-refs"), []byte(packed.String())); err != nil {
		return err
	}
	if err := replace(filepath.Join(o.bare(r), "HEAD"), []byte("ref: "+now.head+"\n")); err != nil {
		return err
	}
	o.refs[r] = packed.String() + now.head
	return nil
}

func (o *store) addCommit(c *commit) error {
	if c.from == nil {
		if _, err := o.addTree(c.files); err != nil {
			return err
		}
	}
	return o.add("commit", c.sha, []byte(c.text))
}

// addTree writes a tree and all below it.
func (o *store) addTree(files tree) (sha string, err error) {
	var object bytes.Buffer
	for _, e := range files.entries() {
		mode, at := e.file.mode, e.file.sha
		switch {
		case e.folder != nil:
			mode = modeFolder
			at, err = o.addTree(e.folder)
		case e.file.mode != modeSubmodule && e.file.from == nil:
			err = o.add("blob", at, e.file.content)
		}
		if err != nil {
			return "", err
		}
		writeTreeEntry(&object, mode, e.name, at)
	}
	sha = hashObject("tree", object.Bytes())
	return sha, o.add("tree", sha, object.Bytes())
}

func writeTreeEntry(object *bytes.Buffer, mode, name, sha string) {
	raw, _ := hex.DecodeString(sha) // as hashObject wrote it
	fmt.Fprintf(object, "%s %s\x00%s", mode, name, raw)
}

// add writes one object as git does that is in no pack.
func (o *store) add(kind, sha string, content []byte) error {
	if o.has[sha] {
		return nil
	}
	folder := filepath.Join(o.objects(), sha[:2])
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	var packed bytes.Buffer
	writer := zlib.NewWriter(&packed) // a buffer takes everything, so neither of these fails
	_, _ = fmt.Fprintf(writer, "%s %d\x00", kind, len(content))
	_, _ = writer.Write(content)
	_ = writer.Close()
	if err := replace(filepath.Join(folder, sha[2:]), packed.Bytes()); err != nil {
		return err
	}
	o.has[sha] = true
	return nil
}

// replace writes a file that others may be reading.
func replace(name string, content []byte) error {
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
