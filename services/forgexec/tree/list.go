package tree

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"google.golang.org/protobuf/encoding/protodelim"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Listing is what is there below some paths.
type Listing struct {
	Index *Index
	// Size in bytes, and number, of the files.
	Size, Files int64
	// Skipped are sockets, devices and the like, which nobody can keep.
	Skipped int64
	roots   []string
}

// TooManyError is that there are more files and folders than may be kept.
type TooManyError struct{ Most int64 }

func (e TooManyError) Error() string {
	return fmt.Sprintf("there are more than %d files and folders", e.Most)
}

// List lists what lies at and below each of some absolute paths; one that is not
// there has nothing. At most so many entries.
func List(roots []string, most int64) (*Listing, error) {
	l, err := newLister(roots, most)
	if err != nil {
		return nil, err
	}
	for number, root := range roots {
		err := filepath.WalkDir(root, func(at string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // it went meanwhile, or was never there
				return nil
			}
			if err != nil {
				return err
			}
			name := ""
			if at != root {
				name = filepath.ToSlash(at[len(root)+1:])
			}
			return l.add(number, name, at)
		})
		if err != nil {
			return nil, err
		}
	}
	return l.done()
}

// ListFiles lists files and links by their names, with slashes, within a folder, in
// this order, and the folders on the way to each.
func ListFiles(root string, names []string, most int64) (*Listing, error) {
	l, err := newLister([]string{root}, most)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if listed[name] {
			return nil
		}
		listed[name] = true
		if name != "" {
			folder := path.Dir(name)
			if folder == "." {
				folder = ""
			}
			if err := add(folder); err != nil {
				return err
			}
		}
		return l.add(0, name, filepath.Join(root, filepath.FromSlash(name)))
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return l.done()
}

type lister struct {
	listing *Listing
	out     *bufio.Writer
	most    int64
	count   int64
	linked  map[inode]place // files with more than one name
}

type inode struct{ device, number uint64 }

type place struct {
	root int
	name string
}

func newLister(roots []string, most int64) (*lister, error) {
	index, err := NewIndex()
	if err != nil {
		return nil, err
	}
	return &lister{listing: &Listing{Index: index, roots: roots}, out: bufio.NewWriter(index), most: most, linked: map[inode]place{}}, nil
}

func (l *lister) add(root int, name, at string) error {
	info, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entry := &schedulerv1.FileEntry{
		Path: int32(root), Name: name, Mode: uint32(info.Mode().Perm()), Modified: info.ModTime().UnixNano(), //nolint:gosec // there are few paths
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		l.file(entry, info)
	case mode.IsDir():
		entry.Type = schedulerv1.FileEntry_TYPE_FOLDER
	case mode&fs.ModeSymlink != 0:
		entry.Type = schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK
		if entry.Target, err = os.Readlink(at); err != nil {
			return err
		}
	default:
		l.listing.Skipped++
		return nil
	}
	if l.count++; l.count > l.most {
		return TooManyError{l.most}
	}
	_, err = protodelim.MarshalTo(l.out, entry)
	return err
}

func (l *lister) file(entry *schedulerv1.FileEntry, info fs.FileInfo) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		id := inode{uint64(stat.Dev), stat.Ino} //nolint:unconvert // it is signed elsewhere
		if first, known := l.linked[id]; known && first.root == int(entry.GetPath()) {
			entry.Type, entry.Target = schedulerv1.FileEntry_TYPE_HARD_LINK, first.name
			return
		}
		l.linked[id] = place{int(entry.GetPath()), entry.GetName()}
	}
	entry.Type, entry.Size = schedulerv1.FileEntry_TYPE_FILE, info.Size()
	l.listing.Size += info.Size()
	l.listing.Files++
}

func (l *lister) done() (*Listing, error) {
	return l.listing, errors.Join(l.out.Flush(), l.listing.Index.Close())
}

// at is where an entry lies.
func at(roots []string, entry *schedulerv1.FileEntry) string {
	return filepath.Join(roots[entry.GetPath()], filepath.FromSlash(path.Clean("/"+entry.GetName())))
}
