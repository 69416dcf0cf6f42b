package forgexec

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// limits of a source. A bare stream of headers is bounded by three times size.
type limits struct {
	size       int64 // bytes in files
	entries    int64 // files, folders and links
	repository int64 // bytes in .git
}

func sourceLimits() limits { return limits{size: 2 << 30, entries: 1_000_000, repository: 5 << 30} }

const zstdMagic = 0xFD2FB528

// maxName is PATH_MAX of Linux.
const maxName = 4096

// refusal is why a source must not be unpacked, for people.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// unpack unpacks a source into root, an empty folder: GitHub's archive, a gzipped
// tarball, without the one folder around everything; or a checkout, compressed by
// zstd, whose repository becomes .git. It reads to the end of the stream. A refusal
// says that the source holds what must not be unpacked.
//
// A symbolic link is made as git makes it, wherever it points: a link writes
// nothing, and a command that follows one could open its target by name as well.
// What unpack itself writes never goes through a link: it makes each folder on the
// way itself, and each file as a new one.
func unpack(root *os.Root, stream io.Reader, most limits) (entries, size int64, err error) {
	u := &unpacking{root: root, most: most, folders: map[string]bool{".": true}, repositories: map[string]string{}}
	defer func() {
		if broken := u.settle(err); err == nil && broken != nil {
			entries, size, err = 0, 0, broken
		}
	}()
	peeked := bufio.NewReader(stream)
	unzipped, err := u.decompress(peeked)
	if err != nil {
		return 0, 0, fmt.Errorf("read the source: %w", err)
	}
	defer unzipped.Close() //nolint:errcheck // it is only read
	raw := &bounded{r: unzipped, left: 3*most.size + most.repository, most: most.size}
	archive := tar.NewReader(raw)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read the source: %w", err)
		}
		if err := u.entry(header, archive); err != nil {
			return 0, 0, err
		}
	}
	// The checksum stands at the end.
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return 0, 0, fmt.Errorf("read the source: %w", err)
	}
	if err := u.settle(nil); err != nil {
		return 0, 0, err
	}
	if u.checkout {
		u.repositories[repositoryFolder] = "."
		for repository, workTree := range u.repositories {
			if err := noteTimes(root, repository, workTree); err != nil {
				return 0, 0, fmt.Errorf("the index of the checkout: %w", err)
			}
		}
	}
	return u.entries, u.size.Load(), nil
}

// decompress tells a checkout from an archive by how it begins.
func (u *unpacking) decompress(stream *bufio.Reader) (io.ReadCloser, error) {
	begin, err := stream.Peek(4)
	if err == nil && binary.LittleEndian.Uint32(begin) == zstdMagic {
		u.checkout = true
		unzipped, err := zstd.NewReader(stream, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
		return unzipped.IOReadCloser(), nil
	}
	return gzip.NewReader(stream)
}

type bounded struct {
	r          io.Reader
	left, most int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLarge(b.most)
	}
	return n, err
}

func tooLarge(most int64) error {
	return refuse("the source is larger than %d MiB unpacked, the most Forge takes", most>>20)
}

type unpacking struct {
	root       *os.Root
	checkout   bool
	most       limits
	top        string          // the folder around everything
	folders    map[string]bool // those made here: real ones, never links
	entries    int64
	size       atomic.Int64 // bytes in files
	repository atomic.Int64 // bytes in .git
	// packed are files whose content the next pack has, unpacking those of the last one.
	packed   []packedFile
	unpacker *packUnpacker
	// repositories are the folders of those that were unpacked, and of their work trees.
	repositories map[string]string
}

func (u *unpacking) entry(header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader { // git writes the commit there
		return nil
	}
	name, err := u.within(header.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if header.Typeflag != tar.TypeDir {
			return refuse("the source holds %s outside of its one folder", quoted(header.Name))
		}
		return nil
	}
	if header.Typeflag == tar.TypeDir {
		return u.folder(name)
	}
	if err := u.folder(path.Dir(name)); err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	switch {
	case u.checkout && strings.HasPrefix(header.Name, gitFileFolder):
		err = u.gitFile(name, header, content)
	case u.checkout && header.Typeflag == tar.TypeReg && header.Linkname != "":
		err = u.expect(name, header)
	case header.Typeflag == tar.TypeReg:
		err = u.file(name, header, content)
	case header.Typeflag == tar.TypeSymlink:
		if u.checkout && ofRepository(name) {
			return refuse("the source holds a link in its repository: %s", quoted(name))
		}
		err = u.root.Symlink(header.Linkname, name)
	case header.Typeflag == tar.TypeLink:
		err = u.hardLink(name, header.Linkname)
	default:
		return refuse("the source holds %s, which is no file, folder or link", quoted(name))
	}
	if err != nil {
		if failed := u.finish(err); failed != nil { // it ended what is written here
			return failed
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return refuse("the source holds %s twice", quoted(name))
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", quoted(name), err)
	}
	return nil
}

// within returns the name in the workspace, "." for that itself.
func (u *unpacking) within(name string) (string, error) {
	if len(name) > maxName {
		return "", refuse("the source holds a name of more than %d bytes: %s", maxName, quoted(name))
	}
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == "." || strings.Contains("/"+name+"/", "/../") || !filepath.IsLocal(clean) {
		return "", refuse("the source holds %s, which leads outside of the workspace", quoted(name))
	}
	top, rest, _ := strings.Cut(clean, "/")
	if rest == "" {
		rest = "."
	}
	if u.checkout {
		return placed(top, rest)
	}
	if u.top == "" {
		u.top = top
	}
	if top != u.top {
		return "", refuse("the source holds %s outside of its one folder %s", quoted(name), quoted(u.top))
	}
	return rest, nil
}

// folder makes the folder and those above it. Whatever else is there by that
// name, a link above all, is refused: nothing is ever written through a link.
func (u *unpacking) folder(name string) error {
	if u.folders[name] {
		return nil
	}
	if err := u.folder(path.Dir(name)); err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	err := u.root.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return refuse("the source holds %s both as a folder and as something else", quoted(name))
	}
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	u.folders[name] = true
	return nil
}

func (u *unpacking) count() error {
	if u.entries++; u.entries > u.most.entries {
		return refuse("the source holds more than %d files and folders, the most Forge takes", u.most.entries)
	}
	return nil
}

func (u *unpacking) file(name string, header *tar.Header, content io.Reader) error {
	size, most := &u.size, u.most.size
	if u.checkout && ofRepository(name) {
		size, most = &u.repository, u.most.repository
	}
	if err := take(header.Size, size, most); err != nil {
		return err
	}
	if len(u.packed) > 0 && ofRepository(name) && strings.HasSuffix(name, packSuffix) {
		return u.unpackFrom(name, content)
	}
	file, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode(header))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

func fileMode(header *tar.Header) fs.FileMode {
	if header.Mode&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

// take counts bytes before they are written.
func take(bytes int64, of *atomic.Int64, most int64) error {
	if of.Add(bytes) > most || bytes > most {
		return tooLarge(most)
	}
	return nil
}

// hardLink links to a regular file of the source that is there already, and that
// is reached by folders alone. A hard link to a symbolic one would give that
// another place to count from.
func (u *unpacking) hardLink(name, target string) error {
	old, err := u.within(target)
	if err != nil {
		return err
	}
	if info, err := u.root.Lstat(old); err != nil || !info.Mode().IsRegular() || !u.folders[path.Dir(old)] {
		return refuse("the source holds %s, a link to %s, which is no file before it", quoted(name), quoted(target))
	}
	return u.root.Link(old, name)
}

// quoted keeps hostile names short and on one line.
func quoted(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Sprintf("%q", name)
}
