package forgexec

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	packSuffix      = ".pack"
	packIndexSuffix = ".idx"
	// A worker takes so many files of a folder at once, from so many bytes of the pack.
	maxTaken, maxTakenBytes = 16, 1 << 20
	// maxUnpackers bounds the memory of those that unpack at once.
	maxUnpackers = 4
)

// packedFile is a file of the work tree whose content is in a pack.
type packedFile struct {
	folder, name string
	object       objectName
	mode         fs.FileMode
	offset       int64 // of the object in the pack
}

// expect notes a file of the work tree that the next pack has.
func (u *unpacking) expect(name string, header *tar.Header) error {
	object, err := parseObjectName(header.Linkname)
	if err != nil || ofRepository(name) {
		return refuse("the source holds %s, whose content is in no pack", quoted(name))
	}
	u.packed = append(u.packed, packedFile{folder: path.Dir(name), name: path.Base(name), object: object, mode: fileMode(header)})
	return nil
}

// unpackFrom writes a pack, whose index is there already, while others write the files
// that are in it, as soon as they are.
func (u *unpacking) unpackFrom(name string, content io.Reader) error {
	if err := u.finish(nil); err != nil {
		return err
	}
	index, err := openPackIndex(u.root, strings.TrimSuffix(name, packSuffix)+packIndexSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("the source holds %s without its index", quoted(name))
	}
	if err != nil {
		return err
	}
	files := u.packed
	u.packed = nil
	for i := range files {
		if files[i].offset, err = index.find(files[i].object); err != nil {
			index.close()
			return fmt.Errorf("%s: %w", quoted(path.Join(files[i].folder, files[i].name)), err)
		}
	}
	slices.SortStableFunc(files, func(a, b packedFile) int { return cmp.Compare(a.offset, b.offset) })
	file, err := u.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		index.close()
		return err
	}
	u.unpacker = &packUnpacker{root: u.root, index: index, pack: newGrowing(file), files: files, take: func(size int64) error { return take(size, &u.size, u.most.size) }}
	u.unpacker.start()
	_, err = io.CopyBuffer(u.unpacker.pack, struct{ io.Reader }{content}, make([]byte, 128<<10))
	u.unpacker.pack.end(err)
	return err
}

// finish waits for the files of the last pack. An error has no more of them written.
func (u *unpacking) finish(because error) error {
	if u.unpacker == nil {
		return nil
	}
	if because != nil {
		u.unpacker.abandon(because)
	}
	err := u.unpacker.wait()
	u.unpacker = nil
	return err
}

// settle ends what is under way at the end of the stream, or because of an error.
func (u *unpacking) settle(because error) error {
	if err := u.finish(because); err != nil || because != nil {
		return err
	}
	if len(u.packed) > 0 {
		return refuse("the source holds %s, whose content is in no pack", quoted(path.Join(u.packed[0].folder, u.packed[0].name)))
	}
	return nil
}

// packUnpacker writes files of a pack, several at once.
type packUnpacker struct {
	root  *os.Root
	index *packIndex
	pack  *growing
	take  func(size int64) error

	working errgroup.Group
	mu      sync.Mutex
	files   []packedFile // that are still to be written, as the pack has them
}

func (u *packUnpacker) start() {
	for range min(runtime.GOMAXPROCS(0), maxUnpackers) {
		u.working.Go(func() error {
			err := u.work()
			if err != nil {
				u.pack.end(err)
			}
			return err
		})
	}
}

func (u *packUnpacker) wait() error {
	err := u.working.Wait()
	u.index.close()
	return errors.Join(err, u.pack.file.Close())
}

func (u *packUnpacker) abandon(because error) {
	u.pack.end(because)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.files = nil
}

// next are some files of one folder, none at the end.
func (u *packUnpacker) next() (files []packedFile) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for n < min(len(u.files), maxTaken) && u.files[n].folder == u.files[0].folder && u.files[n].offset-u.files[0].offset < maxTakenBytes {
		n++
	}
	files, u.files = u.files[:n], u.files[n:]
	return files
}

func (u *packUnpacker) work() error {
	from := newPackReader(u.pack, u.index)
	for {
		files := u.next()
		if len(files) == 0 {
			return nil
		}
		folder, err := u.root.OpenRoot(files[0].folder)
		if err != nil {
			return err
		}
		for _, file := range files {
			if err = u.write(folder, file, from); err != nil {
				break
			}
		}
		if err := errors.Join(err, folder.Close()); err != nil {
			return err
		}
	}
}

func (u *packUnpacker) write(folder *os.Root, f packedFile, from *packReader) error {
	err := func() error {
		file, err := folder.OpenFile(f.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if err != nil {
			return err
		}
		if err := from.write(file, f.offset, 0, u.take); err != nil {
			return errors.Join(err, file.Close())
		}
		if err := file.Close(); err != nil {
			return err
		}
		before := beforeIndex(time.Now())
		return folder.Chtimes(f.name, before, before)
	}()
	name := path.Join(f.folder, f.name)
	if errors.Is(err, fs.ErrExist) {
		return refuse("the source holds %s twice", quoted(name))
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", quoted(name), err)
	}
	return nil
}
