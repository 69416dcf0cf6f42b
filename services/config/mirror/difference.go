package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Difference is what is changed on a commit.
type Difference struct {
	Author  string
	Time    time.Time
	Changes []Change
}

// Change is one file: git's mode of it, "" where it is gone, and what is in it.
type Change struct {
	Path, Mode string
	Content    []byte
}

// differenceMessage is that of the commit that a difference makes.
const differenceMessage = "Uncommitted changes"

// Found is a file that was asked for.
type Found struct {
	Name, Mode string
	Size       int64
	Text       []byte // of a file that is no larger than was asked for
}

// Files reads files at the top of the commit that a difference makes, and names that
// commit.
func (m *Mirrors) Files(ctx context.Context, remote Remote, want Want, most int64, names ...string) (sha string, found []Found, err error) {
	r, err := m.acquireDifference(ctx, remote, &want)
	if err != nil {
		return "", nil, err
	}
	defer r.lock.free()
	listed, err := r.output(ctx, append([]string{"ls-tree", "-l", "-z", want.SHA, "--"}, names...)...)
	if err != nil {
		return "", nil, err
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(listed, "\x00"), "\x00") {
		about, name, is := strings.Cut(line, "\t") // MODE KIND SHA SIZE
		words := strings.Fields(about)
		if !is || len(words) != 4 {
			continue
		}
		f := Found{Name: name, Mode: words[0]}
		f.Size, _ = strconv.ParseInt(words[3], 10, 64) // of a folder there is none
		if words[1] == "blob" && f.Size <= most {
			text, err := r.output(ctx, "cat-file", "blob", words[2])
			if err != nil {
				return "", nil, err
			}
			f.Text = []byte(text)
		}
		found = append(found, f)
	}
	return want.SHA, found, nil
}

// acquireDifference has the commit made that the wanted difference makes, and be what is
// wanted.
func (m *Mirrors) acquireDifference(ctx context.Context, remote Remote, want *Want) (*repository, error) {
	r, err := m.acquire(ctx, remote, *want)
	if err != nil {
		return nil, err
	}
	made, err := r.apply(ctx, want.SHA, want.Difference)
	if err != nil {
		r.lock.free()
		return nil, m.unmade(ctx, remote, err)
	}
	want.SHA, want.Difference = made, nil
	return r, nil
}

// apply makes the commit. It is made apart, and comes into the copy as a fetched one
// does, checked by git: what is refused leaves nothing there. It writes objects alone,
// which many may do at once.
func (r *repository) apply(ctx context.Context, base string, d *Difference) (string, error) {
	scratch, err := os.MkdirTemp(filepath.Join(r.mirrors.dir, scratchFolder), "difference-")
	if err != nil {
		return "", fmt.Errorf("mirrors: %w", err)
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // what stays is removed at the next start
	apart := filepath.Join(scratch, "objects")
	if err := os.MkdirAll(filepath.Join(apart, "info"), 0o700); err != nil {
		return "", fmt.Errorf("mirrors: %w", err)
	}
	if err := os.WriteFile(filepath.Join(apart, "info", "alternates"), []byte(filepath.Join(r.path, "objects")+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("mirrors: %w", err)
	}
	a := applying{repository: r, scratch: scratch, environ: []string{"GIT_OBJECT_DIRECTORY=" + apart, "GIT_INDEX_FILE=" + filepath.Join(scratch, "index")}}
	made, err := a.commit(ctx, base, d)
	if err != nil || r.has(ctx, made) {
		return made, err
	}
	packed := &bytes.Buffer{}
	cmd, said := r.mirrors.git.command(ctx, a.call(strings.NewReader(made+"\n^"+base+"\n")), "pack-objects", "--revs", "--stdout", "--thin", "--quiet")
	cmd.Stdout = packed
	if err := said.explain(ctx, []string{"pack-objects"}, cmd.Run()); err != nil {
		return "", err
	}
	c := r.call()
	c.stdin = packed
	return made, refused(r.mirrors.git.run(ctx, c, "index-pack", "--stdin", "--fix-thin", "--strict"))
}

// refused is an error as whoever sent the difference hears it: the copy is not at fault.
func refused(err error) error {
	if _, isGit := errors.AsType[*Error](err); isGit && !full(err) {
		return fault.Newf(fault.Invalid, "git refuses the difference: %w", errors.New(err.Error())) // no *Error any more
	}
	return err
}

// applying is a commit under way.
type applying struct {
	*repository

	scratch string
	environ []string
}

func (a applying) call(stdin *strings.Reader) call {
	c := a.repository.call()
	c.environ = a.environ
	if stdin != nil {
		c.stdin = stdin
	}
	return c
}

func (a applying) git(ctx context.Context, stdin string, args ...string) (string, error) {
	text, err := a.mirrors.git.output(ctx, a.call(strings.NewReader(stdin)), args...)
	return strings.TrimSpace(text), err
}

// commit makes it of an index, which takes no path that leads out of the work tree or
// into its repository, nor one through a link.
func (a applying) commit(ctx context.Context, base string, d *Difference) (string, error) {
	blobs, err := a.blobs(ctx, d.Changes)
	if err != nil {
		return "", err
	}
	if _, err := a.git(ctx, "", "read-tree", base); err != nil {
		return "", err
	}
	var gone, there strings.Builder // a folder may take the place of a file
	for n, c := range d.Changes {
		if c.Mode == "" {
			fmt.Fprintf(&gone, "0 %s\t%s\x00", strings.Repeat("0", len(base)), c.Path)
		} else {
			fmt.Fprintf(&there, "%s %s\t%s\x00", c.Mode, blobs[n], c.Path)
		}
	}
	if _, err := a.git(ctx, gone.String()+there.String(), "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "update-index", "-z", "--index-info"); err != nil {
		return "", refused(err)
	}
	if err := a.taken(ctx, d.Changes, blobs); err != nil {
		return "", err
	}
	tree, err := a.git(ctx, "", "write-tree")
	if err != nil {
		return "", refused(err)
	}
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		a.environ = append(a.environ, "GIT_"+who+"_NAME="+d.Author, "GIT_"+who+"_EMAIL="+d.Author+"@localhost",
			fmt.Sprintf("GIT_%s_DATE=%d +0000", who, d.Time.Unix()))
	}
	return a.git(ctx, "", "commit-tree", tree, "-p", base, "-m", differenceMessage)
}

// taken refuses a change that is not in the index: git leaves out paths that it refuses,
// and what was replaced by something that lies below it.
func (a applying) taken(ctx context.Context, changes []Change, blobs map[int]string) error {
	text, err := a.repository.mirrors.git.output(ctx, a.call(nil), "ls-files", "--stage", "-z")
	if err != nil {
		return err
	}
	there := map[string]string{}
	for line := range strings.SplitSeq(text, "\x00") {
		about, name, _ := strings.Cut(line, "\t") // MODE SHA STAGE
		there[name] = about
	}
	for n, c := range changes {
		if c.Mode != "" && there[c.Path] != c.Mode+" "+blobs[n]+" 0" {
			return fault.Newf(fault.Invalid, "git refuses the path %q of the difference", c.Path)
		}
	}
	return nil
}

// blobs are the names of the contents, in their order.
func (a applying) blobs(ctx context.Context, changes []Change) (map[int]string, error) {
	var paths strings.Builder
	var order []int
	for n, c := range changes {
		if c.Mode == "" {
			continue
		}
		name := filepath.Join(a.scratch, strconv.Itoa(n))
		if err := os.WriteFile(name, c.Content, 0o600); err != nil {
			return nil, fmt.Errorf("mirrors: %w", err)
		}
		paths.WriteString(name + "\n")
		order = append(order, n)
	}
	blobs := map[int]string{}
	if len(order) == 0 {
		return blobs, nil
	}
	text, err := a.git(ctx, paths.String(), "hash-object", "-w", "--no-filters", "--stdin-paths")
	if err != nil {
		return nil, err
	}
	names := strings.Fields(text)
	if len(names) != len(order) {
		return nil, fmt.Errorf("git hash-object names %d objects of %d", len(names), len(order))
	}
	for n, name := range names {
		blobs[order[n]] = name
	}
	return blobs, nil
}
