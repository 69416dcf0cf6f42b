package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// BrokenError is that an index asks for what no listing holds.
type BrokenError string

func (e BrokenError) Error() string { return string(e) }

func broken(format string, args ...any) error { return BrokenError(fmt.Sprintf(format, args...)) }

// Make makes what an index lists, whose files' bytes content has: at and below these
// absolute paths and nowhere else, never through a link. What is there already
// stays, but for what has the same name. Where it fails, what it has made is removed.
func Make(roots []string, index *Index, content io.Reader) (err error) {
	m := &maker{roots: roots, content: content, folders: map[place]*folder{}, buffer: make([]byte, 128<<10)}
	defer m.leave()
	defer func() {
		if err != nil {
			m.undo(index)
		}
	}()
	if err := m.each(index, m.entry); err != nil {
		return err
	}
	if n, _ := content.Read(m.buffer[:1]); n > 0 {
		return broken("there is more than the listed files hold")
	}
	return m.finish()
}

type maker struct {
	roots   []string
	content io.Reader
	buffer  []byte
	// folders are those that entries name, and their number in order.
	folders map[place]*folder
	order   []*folder
	made    int // of entries, for undo

	in     place    // the folder that is open
	dir    *os.Root // nil: none is
	parent *os.Root // of the root that is being made; see base
	number int      // of that root
	base   string   // its name in parent
}

// folder is one that an entry names.
type folder struct {
	entry *schedulerv1.FileEntry
	ours  bool // it was not there before
}

func (m *maker) each(index *Index, do func(*schedulerv1.FileEntry) error) error {
	entries, err := index.entries()
	if err != nil {
		return err
	}
	defer entries.close()
	for {
		entry, err := entries.next()
		if err != nil || entry == nil {
			return err
		}
		if err := do(entry); err != nil {
			return err
		}
	}
}

func (m *maker) entry(entry *schedulerv1.FileEntry) error {
	name := entry.GetName()
	if n := int(entry.GetPath()); n < 0 || n >= len(m.roots) {
		return broken("there is no path %d", n)
	}
	if name != "" && (!filepath.IsLocal(name) || path.Clean(name) != name || name == "." || strings.ContainsRune(name, 0)) {
		return broken("%q is no name of a file", clip(name))
	}
	dir, base, err := m.open(entry)
	if err != nil {
		return err
	}
	switch entry.GetType() {
	case schedulerv1.FileEntry_TYPE_FOLDER:
		err = m.folder(dir, base, entry)
	case schedulerv1.FileEntry_TYPE_FILE:
		err = m.file(dir, base, entry)
	case schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK:
		if err = remove(dir, base); err == nil {
			err = dir.Symlink(entry.GetTarget(), base)
		}
	case schedulerv1.FileEntry_TYPE_HARD_LINK:
		err = m.hardLink(dir, base, entry)
	default:
		return broken("%q is no file, folder or link", clip(name))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", at(m.roots, entry), err)
	}
	m.made++
	return nil
}

// open opens the folder that an entry lies in, and returns its name there.
func (m *maker) open(entry *schedulerv1.FileEntry) (*os.Root, string, error) {
	number := int(entry.GetPath())
	if m.parent == nil || m.number != number {
		m.leave()
		root := m.roots[number]
		if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil { //nolint:gosec // a step may become another user
			return nil, "", err
		}
		parent, err := os.OpenRoot(filepath.Dir(root))
		if err != nil {
			return nil, "", err
		}
		m.parent, m.number, m.base = parent, number, filepath.Base(root)
	}
	if entry.GetName() == "" {
		return m.parent, m.base, nil
	}
	within := place{number, path.Dir(entry.GetName())}
	if within.name == "." {
		within.name = ""
	}
	if m.dir == nil || m.in != within {
		if m.folders[within] == nil {
			return nil, "", broken("%q lies in no folder", clip(entry.GetName()))
		}
		m.close()
		dir, err := m.parent.OpenRoot(path.Join(m.base, within.name))
		if err != nil {
			return nil, "", err
		}
		m.dir, m.in = dir, within
	}
	return m.dir, path.Base(entry.GetName()), nil
}

func (m *maker) close() {
	if m.dir != nil {
		_ = m.dir.Close()
		m.dir = nil
	}
}

func (m *maker) leave() {
	m.close()
	if m.parent != nil {
		_ = m.parent.Close()
		m.parent = nil
	}
}

// remove makes room for something that is no folder.
func remove(dir *os.Root, name string) error {
	info, err := dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("there is a folder of this name")
	}
	return dir.Remove(name)
}

func (m *maker) folder(dir *os.Root, name string, entry *schedulerv1.FileEntry) error {
	key := place{int(entry.GetPath()), entry.GetName()}
	if m.folders[key] != nil {
		return broken("it is listed twice")
	}
	one := &folder{entry: entry}
	info, err := dir.Lstat(name)
	if err == nil && !info.IsDir() { // a link above all: nothing is written through one
		if err := dir.Remove(name); err != nil {
			return err
		}
	}
	if err != nil || !info.IsDir() {
		if err := dir.Mkdir(name, 0o700); err != nil {
			return err
		}
		one.ours = true
	}
	m.folders[key] = one
	m.order = append(m.order, one)
	return nil
}

func (m *maker) file(dir *os.Root, name string, entry *schedulerv1.FileEntry) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	file, err := dir.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err = remove(dir, name); err == nil {
			file, err = dir.OpenFile(name, flags, 0o600)
		}
	}
	if err != nil {
		return err
	}
	err = m.fill(file, entry.GetSize())
	err = errors.Join(err, file.Chmod(fs.FileMode(entry.GetMode()).Perm()), file.Close())
	if err != nil {
		_ = dir.Remove(name)
		return err
	}
	return dir.Chtimes(name, time.Time{}, time.Unix(0, entry.GetModified()))
}

func (m *maker) fill(file *os.File, size int64) error {
	for size > 0 {
		n, err := m.content.Read(m.buffer[:min(size, int64(len(m.buffer)))])
		size -= int64(n)
		if _, err := file.Write(m.buffer[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) && size > 0 {
			return broken("its bytes are missing")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// hardLink gives another name to a file that was made before.
func (m *maker) hardLink(dir *os.Root, name string, entry *schedulerv1.FileEntry) error {
	target := entry.GetTarget()
	within := place{int(entry.GetPath()), path.Dir(target)}
	if within.name == "." {
		within.name = ""
	}
	if !filepath.IsLocal(target) || path.Clean(target) != target || m.folders[within] == nil {
		return broken("it links to %q, which is no file before it", clip(target))
	}
	old := path.Join(m.base, target)
	if info, err := m.parent.Lstat(old); err != nil || !info.Mode().IsRegular() {
		return broken("it links to %q, which is no file before it", clip(target))
	}
	if err := remove(dir, name); err != nil {
		return err
	}
	return m.parent.Link(old, path.Join(m.base, entry.GetName()))
}

// finish gives folders their modes and times, which making files in them would
// have changed or kept from being done.
func (m *maker) finish() error {
	for _, one := range slices.Backward(m.order) {
		if !one.ours {
			continue
		}
		dir, name, err := m.open(one.entry)
		if err != nil {
			return err
		}
		err = errors.Join(
			dir.Chmod(name, fs.FileMode(one.entry.GetMode()).Perm()),
			dir.Chtimes(name, time.Time{}, time.Unix(0, one.entry.GetModified())))
		if err != nil {
			return fmt.Errorf("make %s: %w", at(m.roots, one.entry), err)
		}
	}
	return nil
}

// undo removes what was made. It does what it can.
func (m *maker) undo(index *Index) {
	left := m.made
	_ = m.each(index, func(entry *schedulerv1.FileEntry) error {
		if left--; left < 0 {
			return io.EOF
		}
		if entry.GetType() == schedulerv1.FileEntry_TYPE_FOLDER {
			return nil
		}
		if dir, name, err := m.open(entry); err == nil {
			_ = dir.Remove(name)
		}
		return nil
	})
	for _, one := range slices.Backward(m.order) {
		if one.ours {
			if dir, name, err := m.open(one.entry); err == nil {
				_ = dir.Remove(name)
			}
		}
	}
}

// clip keeps hostile names short.
func clip(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}
