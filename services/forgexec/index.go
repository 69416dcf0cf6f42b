package forgexec

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
	"time"
)

// What stands where in git's index, version 2 (gitformat-index).
const (
	indexHeader   = 12 // DIRC, the version, the number of entries
	entryMode     = 24
	entryFlags    = 60
	entryName     = 62
	nameLength    = 0xfff // of the flags; all ones where the name is longer
	gitlinkMode   = 0o160000
	indexChecksum = sha1.Size
)

// noteTimes tells the index of a repository what the file system says of each file of
// its work tree, so that git need not read them all to see that none has changed.
func noteTimes(root *os.Root, repository, workTree string) error {
	name := path.Join(repository, "index")
	file, err := root.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // what is written is closed below
	index, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if err := fillIndex(root, workTree, index); err != nil {
		return err
	}
	if _, err := file.WriteAt(index, 0); err != nil {
		return err
	}
	return file.Close()
}

func fillIndex(root *os.Root, workTree string, index []byte) error {
	malformed := errors.New("it is not as git writes it")
	end := len(index) - indexChecksum
	if end < indexHeader || string(index[:4]) != "DIRC" || binary.BigEndian.Uint32(index[4:]) != 2 {
		return malformed
	}
	if sum := sha1.Sum(index[:end]); !bytes.Equal(sum[:], index[end:]) { //nolint:gosec // as above
		return malformed
	}
	rest, now := index[indexHeader:end], time.Now()
	folders := &openFolders{root: root}
	defer folders.close()
	for n := binary.BigEndian.Uint32(index[8:]); n > 0; n-- {
		if len(rest) < entryName {
			return malformed
		}
		length := bytes.IndexByte(rest[entryName:], 0)
		if length < 0 || int(binary.BigEndian.Uint16(rest[entryFlags:])&nameLength) != min(length, nameLength) {
			return malformed
		}
		whole := (entryName + length + 8) &^ 7 // it ends with 1 to 8 zero bytes
		if len(rest) < whole {
			return malformed
		}
		name := string(rest[entryName : entryName+length])
		if binary.BigEndian.Uint32(rest[entryMode:]) != gitlinkMode {
			folder, err := folders.open(path.Join(workTree, path.Dir(name)))
			if err == nil {
				err = fillEntry(folder, path.Base(name), now, rest)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", quoted(name), err)
			}
		}
		rest = rest[whole:]
	}
	sum := sha1.Sum(index[:end]) //nolint:gosec // as above
	copy(index[end:], sum[:])
	return nil
}

// openFolders holds the folder that was asked for last open: the names of an index are
// in order.
type openFolders struct {
	root, folder *os.Root
	name         string
}

func (o *openFolders) open(name string) (folder *os.Root, err error) {
	if o.folder != nil && o.name == name {
		return o.folder, nil
	}
	o.close()
	o.folder, err = o.root.OpenRoot(name)
	o.name = name
	return o.folder, err
}

func (o *openFolders) close() {
	if o.folder != nil {
		_ = o.folder.Close() // it was only read
		o.folder = nil
	}
}

// beforeIndex is when a file was written as far as git is told: before the index. Git
// reads each file that was written in the same second as that, and takes one that Git
// LFS keeps for changed. The clock of a file system may be late by some milliseconds.
func beforeIndex(now time.Time) time.Time { return time.Unix(now.Unix()-2, 0) }

// lookAt is what the file system says of a file, which it has be older than the index.
func lookAt(root *os.Root, name string, now time.Time) (os.FileInfo, error) {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.ModTime().Unix() < now.Unix()-1 {
		return info, err
	}
	before := beforeIndex(now)
	if err := root.Chtimes(name, before, before); err != nil {
		return nil, err
	}
	return root.Lstat(name)
}

// fillEntry writes what git compares: times, device, inode, owner and size, each as
// its last 32 bits. The mode stays the commit's.
func fillEntry(root *os.Root, name string, now time.Time, entry []byte) error {
	info, err := lookAt(root, name, now)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil // git reads the file once
	}
	changed := changeTime(stat)
	for i, value := range []int64{changed.Unix(), int64(changed.Nanosecond()), info.ModTime().Unix(), int64(info.ModTime().Nanosecond()), int64(stat.Dev), int64(stat.Ino)} { //nolint:gosec // their last bits; types differ among systems
		binary.BigEndian.PutUint32(entry[4*i:], uint32(value)) //nolint:gosec // as git does
	}
	for i, value := range []int64{int64(stat.Uid), int64(stat.Gid), info.Size()} {
		binary.BigEndian.PutUint32(entry[entryMode+4+4*i:], uint32(value)) //nolint:gosec // as git does
	}
	return nil
}
