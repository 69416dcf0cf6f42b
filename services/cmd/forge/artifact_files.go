package main

import (
	"context"
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

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	typeFile         = schedulerv1.FileEntry_TYPE_FILE
	typeFolder       = schedulerv1.FileEntry_TYPE_FOLDER
	typeSymbolicLink = schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK
	typeHardLink     = schedulerv1.FileEntry_TYPE_HARD_LINK
)

// download hands on what an artifact holds, until it is whole.
func download(ctx context.Context, client schedulerv1.ArtifactServiceClient, req *schedulerv1.DownloadArtifactRequest, each func(*schedulerv1.DownloadArtifactResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where each fails
	stream, err := client.DownloadArtifact(ctx, req)
	for err == nil {
		var message *schedulerv1.DownloadArtifactResponse
		if message, err = stream.Recv(); err == nil {
			err = each(message)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// downloadFile hands on one file with its bytes, by whichever of its names it is asked
// for.
func downloadFile(ctx context.Context, client schedulerv1.ArtifactServiceClient, req *schedulerv1.DownloadArtifactRequest, each func(*schedulerv1.DownloadArtifactResponse) error) error {
	other := proto.CloneOf(req)
	err := download(ctx, client, req, func(message *schedulerv1.DownloadArtifactResponse) error {
		if entry := message.GetEntry(); entry.GetType() == typeHardLink {
			other.File = entry.GetTarget()
			return nil
		}
		return each(message)
	})
	if err != nil || other.GetFile() == req.GetFile() {
		return err
	}
	return download(ctx, client, other, func(message *schedulerv1.DownloadArtifactResponse) error {
		if entry := message.GetEntry(); entry != nil {
			entry.Name = req.GetFile()
		}
		return each(message)
	})
}

// printFile writes one file.
func printFile(ctx context.Context, out io.Writer, client schedulerv1.ArtifactServiceClient, req *schedulerv1.DownloadArtifactRequest) error {
	var left int64
	err := downloadFile(ctx, client, req, func(message *schedulerv1.DownloadArtifactResponse) error {
		if entry := message.GetEntry(); entry != nil {
			if entry.GetType() != typeFile {
				return fmt.Errorf("%q is a link to %q: ask for that", req.GetFile(), entry.GetTarget())
			}
			left = entry.GetSize()
		}
		n, err := out.Write(message.GetData())
		left -= int64(n)
		return err
	})
	if err == nil && left != 0 {
		err = errCutShort
	}
	return err
}

var errCutShort = errors.New("it is not as long as it was listed")

// fetchInto writes what an artifact holds into a folder and nowhere else, never
// through a link. Where it fails, what it has made is removed.
func fetchInto(ctx context.Context, client schedulerv1.ArtifactServiceClient, req *schedulerv1.DownloadArtifactRequest, folder string, force bool) (made *extraction, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // as others who unpack do
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it is only read
	x := &extraction{root: root, force: force, made: map[string]bool{}, folders: map[string]bool{".": true}}
	from := download
	if req.GetFile() != "" {
		from = downloadFile
	}
	if err = from(ctx, client, req, x.take); err == nil {
		err = x.finish()
	}
	if err != nil {
		x.undo()
		return nil, err
	}
	return x, nil
}

// extraction writes entries into a folder.
type extraction struct {
	root  *os.Root
	force bool // replaces files that are there

	file  *os.File // that is being written
	entry *schedulerv1.FileEntry
	left  int64 // of its bytes

	order   []string                 // of what was made
	made    map[string]bool          // the same
	folders map[string]bool          // those that are no links
	listed  []*schedulerv1.FileEntry // of folders that were made
	leftOut []string                 // links
	files   int
	bytes   int64
}

// take takes an entry, or bytes of the file whose entry came last.
func (x *extraction) take(message *schedulerv1.DownloadArtifactResponse) error {
	if entry := message.GetEntry(); entry != nil {
		if err := x.close(); err != nil {
			return err
		}
		if err := x.add(entry); err != nil {
			return fmt.Errorf("%q: %w", entry.GetName(), err)
		}
		return nil
	}
	if x.left -= int64(len(message.GetData())); x.left < 0 {
		return errCutShort
	}
	if len(message.GetData()) == 0 {
		return nil
	}
	_, err := x.file.Write(message.GetData())
	return err
}

func (x *extraction) add(entry *schedulerv1.FileEntry) error {
	name := entry.GetName()
	if name == "" && entry.GetType() == typeFolder { // the workspace itself
		return nil
	}
	if !isName(name) {
		return errors.New("this is no name of a file in a folder")
	}
	if entry.GetType() == typeFolder {
		there := x.made[name]
		if err := x.folder(name); err != nil {
			return err
		}
		if !there && x.made[name] {
			x.listed = append(x.listed, entry)
		}
		return nil
	}
	if err := x.folder(path.Dir(name)); err != nil {
		return err
	}
	switch entry.GetType() {
	case typeFile:
		return x.create(entry)
	case typeSymbolicLink:
		target := entry.GetTarget()
		// One that goes up again after it went down could do so by another link.
		if path.IsAbs(target) || path.Clean(target) != target || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
			x.leftOut = append(x.leftOut, name)
			return nil
		}
		return x.place(name, func() error { return x.root.Symlink(target, name) })
	case typeHardLink:
		target := entry.GetTarget()
		info, err := x.root.Lstat(target)
		if !x.made[target] || !x.folders[path.Dir(target)] || err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("it is a link to %q, which is no file before it", target)
		}
		return x.place(name, func() error { return x.root.Link(target, name) })
	default:
		return errors.New("it is no file, folder or link")
	}
}

func isName(name string) bool {
	return filepath.IsLocal(name) && path.Clean(name) == name && name != "." && !strings.ContainsRune(name, 0)
}

// folder makes a folder and those around it.
func (x *extraction) folder(name string) error {
	if x.folders[name] {
		return nil
	}
	if err := x.folder(path.Dir(name)); err != nil {
		return err
	}
	info, err := x.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := x.root.Mkdir(name, 0o755); err != nil {
			return err
		}
		x.note(name)
	case err != nil:
		return err
	case !info.IsDir(): // a link above all: nothing is written through one
		return fmt.Errorf("%q is there, and is no folder", name)
	}
	x.folders[name] = true
	return nil
}

func (x *extraction) note(name string) {
	x.order = append(x.order, name)
	x.made[name] = true
}

// place makes something of a name that nothing has, or that --force frees.
func (x *extraction) place(name string, create func() error) error {
	err := create()
	if errors.Is(err, fs.ErrExist) {
		info, statErr := x.root.Lstat(name)
		switch {
		case statErr != nil:
			return statErr
		case info.IsDir():
			return errors.New("there is a folder of this name")
		case x.made[name]:
			return errors.New("it is listed twice")
		case !x.force:
			return errors.New("it is there already: --force replaces it")
		}
		if err = x.root.Remove(name); err == nil {
			err = create()
		}
	}
	if err == nil {
		x.note(name)
	}
	return err
}

func (x *extraction) create(entry *schedulerv1.FileEntry) error {
	err := x.place(entry.GetName(), func() (err error) {
		x.file, err = x.root.OpenFile(entry.GetName(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		x.file = nil
		return err
	}
	x.entry, x.left = entry, entry.GetSize()
	x.files++
	x.bytes += entry.GetSize()
	return nil
}

// close ends the file that is being written.
func (x *extraction) close() error {
	if x.file == nil {
		return nil
	}
	err := errors.Join(x.file.Chmod(fs.FileMode(x.entry.GetMode()).Perm()), x.file.Close())
	x.file = nil
	if err == nil && x.left > 0 {
		err = errCutShort
	}
	if err == nil {
		err = x.root.Chtimes(x.entry.GetName(), time.Time{}, time.Unix(0, x.entry.GetModified()))
	}
	return err
}

// finish gives folders their modes and times, which making files in them would have
// changed or kept from being done.
func (x *extraction) finish() error {
	if err := x.close(); err != nil {
		return err
	}
	for _, one := range slices.Backward(x.listed) {
		err := errors.Join(
			x.root.Chmod(one.GetName(), fs.FileMode(one.GetMode()).Perm()),
			x.root.Chtimes(one.GetName(), time.Time{}, time.Unix(0, one.GetModified())))
		if err != nil {
			return err
		}
	}
	return nil
}

// undo removes what was made. It does what it can.
func (x *extraction) undo() {
	if x.file != nil {
		_ = x.file.Close()
	}
	for _, name := range slices.Backward(x.order) {
		_ = x.root.Remove(name)
	}
}
