package mirror

import (
	"archive/tar"
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

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
)

// The stream's folders: what is checked out, what becomes .git, and files that say
// where in the latter the repositories of submodules are.
const (
	treeFolder    = "tree/"
	gitFolder     = "git/"
	gitFileFolder = "gitfile/"
)

const (
	maxTree    = 2 << 30 // bytes in the files of a commit
	maxHistory = 4 << 30 // bytes of a pack
)

// Checkout writes what a build checks out: a tar stream, compressed by zstd, with
// the work tree below tree/, as git would write it, and a repository below git/,
// whose HEAD is the commit and whose index knows nothing yet of the files' times.
// Links are links, whatever they point at. The repository names its origin by the URL
// that people have, without any token. A submodule is an empty folder; where it is
// wanted its files are there, its repository is below git/modules/, and gitfile/ has
// the file that leads from one to the other. Where files are wanted packed, the header
// of each stands between the pack's index and the pack, and names its object as a
// link's target; no content follows. Of the same objects and refs it is the same, byte
// by byte, so that who has begun with one can go on with another.
func (m *Mirrors) Checkout(ctx context.Context, remote Remote, want Want, w io.Writer) (err error) {
	defer func() {
		if err := m.prune(context.WithoutCancel(ctx), remote.name(), full(err)); err != nil {
			m.log.WarnContext(ctx, "mirrors are not pruned; they are after the next use", "error", err)
		}
		if full(err) && fault.Is(err, fault.Internal) {
			err = fullFault(remote.Noun, err)
		}
	}()
	modules, err := m.gather(ctx, remote, &want)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Join(m.dir, scratchFolder), "checkout-")
	if err != nil {
		return fmt.Errorf("mirrors: %w", err)
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // what stays is removed at the next start
	s := &stream{mirrors: m, scratch: scratch}
	return s.write(ctx, w, &module{remote: remote, want: want, children: modules})
}

// suspect has a copy made anew that git cannot read, once nobody uses it.
func (m *Mirrors) suspect(ctx context.Context, remote Remote) {
	if err := os.Remove(filepath.Join(m.path(remote.name()), "HEAD")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.WarnContext(ctx, "mirror is broken and cannot be made anew", "repository", remote.Noun, "error", err)
	}
}

// stream is a checkout under way, with all of its submodules.
type stream struct {
	mirrors *Mirrors
	scratch string
	tar     *tar.Writer
	size    int64 // of the files in it
}

func (s *stream) write(ctx context.Context, w io.Writer, top *module) error {
	compressed, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("compress the source: %w", err)
	}
	s.tar = tar.NewWriter(compressed)
	if err := s.writeModule(ctx, top); err != nil {
		return errors.Join(err, compressed.Close())
	}
	return errors.Join(s.tar.Close(), compressed.Close())
}

// writeModule writes one repository, then its submodules.
func (s *stream) writeModule(ctx context.Context, of *module) error {
	r, err := s.mirrors.open(ctx, of.remote, false)
	if err != nil {
		return err
	}
	defer r.lock.free()
	scratch, err := os.MkdirTemp(s.scratch, "of-")
	if err != nil {
		return fmt.Errorf("mirrors: %w", err)
	}
	c := &checkout{stream: s, repository: r, module: of, scratch: scratch}
	if err := c.write(ctx); err != nil {
		if _, isGit := errors.AsType[*Error](err); isGit && !full(err) {
			if !r.has(ctx, of.want.SHA) {
				return r.gone()
			}
			s.mirrors.suspect(ctx, of.remote)
			err = fault.Newf(fault.Unavailable, "mirror of %s: %w", of.remote.Noun, err)
		}
		return err
	}
	if err := os.RemoveAll(scratch); err != nil {
		return fmt.Errorf("mirrors: %w", err)
	}
	for _, child := range of.children {
		if err := s.writeModule(ctx, child); err != nil {
			return fmt.Errorf("submodule %s: %w", child.path, err)
		}
	}
	return nil
}

// checkout is one repository of a stream.
type checkout struct {
	*stream
	*repository
	*module
	scratch string
}

// write has git make the pack while the files are listed. What is taken from the pack is
// named before it, so that it can be while the pack still comes.
func (c *checkout) write(ctx context.Context) error {
	var made packed
	var files files
	working, at := errgroup.WithContext(ctx)
	working.Go(func() (err error) {
		files, err = c.list(at)
		return err
	})
	working.Go(func() (err error) {
		made, err = c.pack(at)
		return err
	})
	if err := working.Wait(); err != nil {
		return err
	}
	if err := c.writeGit(made, files); err != nil {
		return err
	}
	return c.writeTree(ctx, files)
}

// git runs git on the repository, with what it is given.
func (c *checkout) git(ctx context.Context, call call, args ...string) (string, error) {
	return c.repository.mirrors.git.output(ctx, call, args...)
}

// environ has git use the index and the work tree of this checkout.
func (c *checkout) environ() []string {
	return []string{"GIT_INDEX_FILE=" + filepath.Join(c.scratch, "index")}
}

// header begins an entry. Names are what git has, UTF-8 or not.
func (c *checkout) header(name string, kind byte, mode, size int64, target string) error {
	return c.tar.WriteHeader(&tar.Header{Format: tar.FormatGNU, Typeflag: kind, Name: name, Mode: mode, Size: size, Linkname: target})
}

func (c *checkout) text(name, content string) error {
	if err := c.header(name, tar.TypeReg, 0o644, int64(len(content)), ""); err != nil {
		return err
	}
	_, err := io.WriteString(c.tar, content)
	return err
}

// grow counts the bytes of a file.
func (c *checkout) grow(size int64) error {
	if c.size += size; c.size > maxTree {
		return fault.Newf(fault.Exhausted, "source of %s is larger than %d MiB", c.module.remote.Noun, maxTree>>20)
	}
	return nil
}

// file writes a file of this host.
func (c *checkout) file(name, from string, mode int64) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := c.header(name, tar.TypeReg, mode, info.Size(), ""); err != nil {
		return err
	}
	_, err = io.CopyN(c.tar, file, info.Size())
	return err
}

// files are those of the commit.
type files struct {
	all      []entry
	replaced map[string]string // files of this host in place of what the commit has
}

// list makes the index, and tells what has to be done for each file.
func (c *checkout) list(ctx context.Context) (f files, err error) {
	var index errgroup.Group
	index.Go(func() error {
		call := c.call()
		call.environ = c.environ()
		_, err := c.git(ctx, call, "read-tree", c.want.SHA)
		return err
	})
	f.all, err = c.repository.tree(ctx, c.want.SHA)
	if err := errors.Join(index.Wait(), err); err != nil {
		return f, err
	}
	f.replaced, err = c.replace(ctx, f.all)
	return f, err
}

// isPacked reports whether a file is taken from the pack where it is unpacked.
func (c *checkout) isPacked(e entry, replaced map[string]string) bool {
	return c.want.Packed && !e.isLink() && !e.isSubmodule() && replaced[e.path] == ""
}

// writePacked names the files that are taken from the pack.
func (c *checkout) writePacked(f files) error {
	for _, e := range f.all {
		if !c.isPacked(e, f.replaced) {
			continue
		}
		if err := c.grow(e.size); err != nil {
			return err
		}
		if err := c.header(c.workTreeFolder()+e.path, tar.TypeReg, e.fileMode(), 0, e.sha); err != nil {
			return err
		}
	}
	return nil
}

// writeTree writes the other files, links, and the folders of submodules.
func (c *checkout) writeTree(ctx context.Context, f files) error {
	sent := slices.DeleteFunc(slices.Clone(f.all), func(e entry) bool { return c.isPacked(e, f.replaced) })
	asked := slices.DeleteFunc(slices.Clone(sent), func(e entry) bool { return e.isSubmodule() || f.replaced[e.path] != "" })
	var blobs *objects
	if len(asked) > 0 {
		var err error
		if blobs, err = c.openObjects(ctx, "--buffer"); err != nil {
			return err
		}
		blobs.askAll(asked)
		defer blobs.close()
	}
	for _, e := range sent {
		if err := c.entry(e, blobs, f.replaced); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return nil
}

func (c *checkout) entry(e entry, blobs *objects, replaced map[string]string) error {
	name := c.workTreeFolder() + e.path
	switch {
	case e.isSubmodule():
		return c.header(name+"/", tar.TypeDir, 0o755, 0, "")
	case e.isLink():
		target, err := blobs.text(e.sha, "blob", maxLink)
		if err != nil {
			return err
		}
		return c.header(name, tar.TypeSymlink, 0o777, 0, target)
	case replaced[e.path] != "":
		info, err := os.Stat(replaced[e.path])
		if err != nil {
			return err
		}
		if err := c.grow(info.Size()); err != nil {
			return err
		}
		return c.file(name, replaced[e.path], e.fileMode())
	}
	size, err := blobs.next(e.sha, "blob")
	if err != nil {
		return err
	}
	if err := c.grow(size); err != nil {
		return err
	}
	if err := c.header(name, tar.TypeReg, e.fileMode(), size, ""); err != nil {
		return err
	}
	return blobs.copy(c.tar, size)
}

// writeGit writes the repository that the work tree is of, and names the files that are
// taken from its pack.
func (c *checkout) writeGit(made packed, f files) error {
	for _, folder := range []string{"objects/info/", "objects/pack/", "refs/heads/", "refs/tags/", "info/"} {
		if err := c.header(c.gitDir()+folder, tar.TypeDir, 0o755, 0, ""); err != nil {
			return err
		}
	}
	for _, file := range [][2]string{
		{"HEAD", c.want.SHA + "\n"}, {"config", c.config()}, {"packed-refs", made.shape.packedRefs()}, {"shallow", made.shape.shallowFile()},
	} {
		if file[1] == "" {
			continue
		}
		if err := c.text(c.gitDir()+file[0], file[1]); err != nil {
			return err
		}
	}
	pack := c.gitDir() + path.Join("objects/pack", filepath.Base(made.path))
	if err := c.file(pack+".idx", made.path+".idx", plainMode); err != nil {
		return err
	}
	if err := c.writePacked(f); err != nil {
		return err
	}
	if err := c.file(pack+".pack", made.path+".pack", plainMode); err != nil {
		return err
	}
	if c.module.path != "" {
		if err := c.text(gitFileFolder+c.module.path, c.gitFile()); err != nil {
			return err
		}
	}
	return c.file(c.gitDir()+"index", filepath.Join(c.scratch, "index"), plainMode)
}

// config is .git/config. Its origin is what people clone.
func (c *checkout) config() string {
	var text strings.Builder
	text.WriteString("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n")
	if c.module.path != "" {
		fmt.Fprintf(&text, "\tworktree = %s\n", quoted(c.workTree()))
	}
	fmt.Fprintf(&text, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", quoted(c.module.remote.URL))
	for _, child := range c.children {
		fmt.Fprintf(&text, "[submodule %s]\n\tactive = true\n\turl = %s\n", quoted(child.name), quoted(child.remote.URL))
	}
	return text.String()
}
