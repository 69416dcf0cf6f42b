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
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/kit/fault"
)

// The stream's two folders: what is checked out, and what becomes .git.
const (
	treeFolder = "tree/"
	gitFolder  = "git/"
)

const (
	maxTree    = 2 << 30 // bytes in the files of a commit
	maxHistory = 4 << 30 // bytes of a pack
)

// Checkout writes what a build checks out: a tar stream, compressed by zstd, with
// the work tree below tree/, as git would write it, and a repository below git/,
// whose HEAD is the commit and whose index knows nothing yet of the files' times.
// Links are links, whatever they point at, and a submodule is an empty folder. The
// repository names its origin by the URL that people have, without any token.
func (m *Mirrors) Checkout(ctx context.Context, remote Remote, want Want, w io.Writer) error {
	defer func() {
		if err := m.prune(context.WithoutCancel(ctx)); err != nil {
			m.log.WarnContext(ctx, "mirrors are not pruned; they are after the next use", "error", err)
		}
	}()
	acquire := m.acquire
	if want.Into != "" {
		acquire = func(ctx context.Context, remote Remote, _ Want) (*repository, error) {
			return m.acquireMerge(ctx, remote, &want)
		}
	}
	r, err := acquire(ctx, remote, want)
	if err != nil {
		return err
	}
	defer r.lock.free()
	scratch, err := os.MkdirTemp(filepath.Join(m.dir, scratchFolder), "checkout-")
	if err != nil {
		return fmt.Errorf("mirrors: %w", err)
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // what stays is removed at the next start
	c := &checkout{repository: r, want: want, scratch: scratch}
	err = c.write(ctx, w)
	if _, isGit := errors.AsType[*Error](err); isGit {
		err = fault.Newf(fault.Unavailable, "mirror of %s: %w", remote.Noun, err)
		m.suspect(ctx, remote)
	}
	return err
}

// suspect has a copy made anew that git cannot read, once nobody uses it.
func (m *Mirrors) suspect(ctx context.Context, remote Remote) {
	path := filepath.Join(m.dir, fmt.Sprint(remote.ID)+repositorySuffix)
	if err := os.Remove(filepath.Join(path, "HEAD")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.WarnContext(ctx, "mirror is broken and cannot be made anew", "repository", remote.Noun, "error", err)
	}
}

// checkout is one stream under way.
type checkout struct {
	*repository
	want    Want
	scratch string
	tar     *tar.Writer
	size    int64
}

func (c *checkout) write(ctx context.Context, w io.Writer) error {
	compressed, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("compress the source: %w", err)
	}
	c.tar = tar.NewWriter(compressed)
	for _, part := range []func(context.Context) error{c.writeTree, c.writeGit} {
		if err := part(ctx); err != nil {
			return errors.Join(err, compressed.Close())
		}
	}
	return errors.Join(c.tar.Close(), compressed.Close())
}

// environ has git use the index and the work tree of this checkout.
func (c *checkout) environ() []string {
	return []string{"GIT_INDEX_FILE=" + filepath.Join(c.scratch, "index")}
}

func (c *checkout) run(ctx context.Context, environ []string, args ...string) error {
	call := c.call()
	call.environ = append(c.environ(), environ...)
	return c.mirrors.git.run(ctx, call, args...)
}

// header begins an entry. Names are what git has, UTF-8 or not.
func (c *checkout) header(name string, kind byte, mode int64, size int64, target string) error {
	return c.tar.WriteHeader(&tar.Header{Format: tar.FormatGNU, Typeflag: kind, Name: name, Mode: mode, Size: size, Linkname: target})
}

func (c *checkout) text(name, content string) error {
	if err := c.header(gitFolder+name, tar.TypeReg, 0o644, int64(len(content)), ""); err != nil {
		return err
	}
	_, err := io.WriteString(c.tar, content)
	return err
}

// file writes a file of this host.
func (c *checkout) file(name, from string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if err := c.header(name, tar.TypeReg, mode, info.Size(), ""); err != nil {
		return err
	}
	_, err = io.Copy(c.tar, file)
	return err
}

// writeTree writes the files of the commit.
func (c *checkout) writeTree(ctx context.Context) error {
	entries, err := c.list(ctx)
	if err != nil {
		return err
	}
	if err := c.run(ctx, nil, "read-tree", c.want.SHA); err != nil {
		return err
	}
	converted, err := c.convert(ctx, entries)
	if err != nil {
		return err
	}
	blobs, err := c.openObjects(ctx, "--buffer")
	if err != nil {
		return err
	}
	blobs.askAll(entries)
	defer blobs.close()
	for _, e := range entries {
		if err := c.entry(e, blobs, converted); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return nil
}

func (c *checkout) entry(e entry, blobs *objects, converted map[string]bool) error {
	name := treeFolder + e.path
	switch {
	case e.isSubmodule():
		return c.header(name+"/", tar.TypeDir, 0o755, 0, "")
	case e.isLink():
		target, err := blobs.text(e.sha, "blob", maxLink)
		if err != nil {
			return err
		}
		return c.header(name, tar.TypeSymlink, 0o777, 0, target)
	case converted[e.path]:
		if err := blobs.skip(e.sha); err != nil {
			return err
		}
		return c.file(name, filepath.Join(c.scratch, convertedFolder, filepath.FromSlash(e.path)))
	}
	size, err := blobs.next(e.sha, "blob")
	if err != nil {
		return err
	}
	if c.size += size; c.size > maxTree {
		return fault.Newf(fault.Exhausted, "source of %s is larger than %d MiB", c.remote.Noun, maxTree>>20)
	}
	mode := int64(0o644)
	if e.mode == "100755" {
		mode = 0o755
	}
	if err := c.header(name, tar.TypeReg, mode, size, ""); err != nil {
		return err
	}
	return blobs.copy(c.tar, size)
}

// writeGit writes the repository that the work tree is of.
func (c *checkout) writeGit(ctx context.Context) error {
	shape, err := c.shape(ctx)
	if err != nil {
		return err
	}
	pack, err := c.pack(ctx, shape)
	if err != nil {
		return err
	}
	for _, folder := range []string{"objects/info/", "objects/pack/", "refs/heads/", "refs/tags/", "info/"} {
		if err := c.header(gitFolder+folder, tar.TypeDir, 0o755, 0, ""); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"HEAD": c.want.SHA + "\n", "config": c.config(), "packed-refs": shape.packedRefs(), "shallow": shape.shallowFile(),
	} {
		if content == "" {
			continue
		}
		if err := c.text(name, content); err != nil {
			return err
		}
	}
	for _, suffix := range []string{".pack", ".idx"} {
		if err := c.file(gitFolder+path.Join("objects/pack", filepath.Base(pack)+suffix), pack+suffix); err != nil {
			return err
		}
	}
	return c.file(gitFolder+"index", filepath.Join(c.scratch, "index"))
}

// config is .git/config. Its origin is what people clone.
func (c *checkout) config() string {
	var text strings.Builder
	text.WriteString("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n")
	fmt.Fprintf(&text, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", c.remote.URL)
	return text.String()
}
