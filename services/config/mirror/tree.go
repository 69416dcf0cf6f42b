package mirror

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/forge-ci/forge/services/kit/fault"
)

// entry is one of a commit's tree: a file, a link, or a submodule.
type entry struct {
	mode, sha, path string
	size            int64 // of a file or link
}

func (e entry) isLink() bool      { return e.mode == "120000" }
func (e entry) isSubmodule() bool { return e.mode == "160000" }

func (e entry) fileMode() int64 {
	if e.mode == "100755" {
		return 0o755
	}
	return plainMode
}

const (
	maxLink         = 1 << 20 // bytes of a link's target
	maxCommit       = 8 << 20 // bytes
	convertedFolder = "converted"
	plainMode       = 0o644
)

// tree is a commit's whole tree, in git's order.
func (r *repository) tree(ctx context.Context, sha string) ([]entry, error) {
	text, err := r.output(ctx, "ls-tree", "-r", "-l", "-z", "--full-tree", sha)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for line := range strings.SplitSeq(text, "\x00") {
		if line == "" {
			continue
		}
		about, name, found := strings.Cut(line, "\t") // MODE KIND SHA SIZE
		words := strings.Fields(about)
		if !found || len(words) != 4 {
			return nil, fmt.Errorf("git ls-tree: %q", line)
		}
		size, err := strconv.ParseInt(words[3], 10, 64)
		if err != nil && words[3] != "-" { // a submodule
			return nil, &Error{command: "ls-tree", words: "missing blob " + line}
		}
		entries = append(entries, entry{mode: words[0], sha: words[2], path: name, size: size})
	}
	return entries, nil
}

// replace names the files that have other bytes in a work tree than in a commit, as
// .gitattributes says, and where on this host these are: git writes what has other
// ends of lines or another encoding, and what Git LFS keeps is fetched where it is
// wanted. Other programs that are named as filters are never run: none is
// configured.
func (c *checkout) replace(ctx context.Context, entries []entry) (map[string]string, error) {
	var paths bytes.Buffer
	some, bySHA := false, map[string]entry{}
	for _, e := range entries {
		some = some || path.Base(e.path) == ".gitattributes"
		if !e.isLink() && !e.isSubmodule() {
			paths.WriteString(e.path + "\x00")
			bySHA[e.path] = e
		}
	}
	if !some {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	call := c.call()
	call.environ, call.stdin = c.environ(), &paths
	text, err := c.git(ctx, call, "check-attr", "--cached", "--stdin", "-z", "eol", "working-tree-encoding", "ident", "filter")
	if err != nil {
		return nil, err
	}
	converted, kept := map[string]bool{}, []entry{}
	fields := strings.Split(text, "\x00") // path, attribute, value
	for i := 0; i+2 < len(fields); i += 3 {
		name, attribute, value := fields[i], fields[i+1], fields[i+2]
		switch {
		case attribute == "filter" && value == "lfs":
			kept = append(kept, bySHA[name])
		case attribute == "filter", value == "unspecified", value == "unset", attribute == "eol" && value != "crlf":
		default:
			converted[name] = true
		}
	}
	files, err := c.convert(ctx, converted)
	if err != nil || !c.want.LFS || len(kept) == 0 {
		return files, err
	}
	fetched, err := c.fetchLFS(ctx, kept)
	maps.Copy(files, fetched)
	return files, err
}

// convert has git write files to the scratch folder.
func (c *checkout) convert(ctx context.Context, names map[string]bool) (map[string]string, error) {
	files := map[string]string{}
	if len(names) == 0 {
		return files, nil
	}
	to := filepath.Join(c.scratch, convertedFolder)
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, err
	}
	chosen := &bytes.Buffer{}
	for name := range names {
		chosen.WriteString(name + "\x00")
		files[name] = filepath.Join(to, filepath.FromSlash(name))
	}
	call := c.call()
	call.environ, call.stdin = append(c.environ(), "GIT_WORK_TREE="+to), chosen
	_, err := c.git(ctx, call, "-c", "core.bare=false", "checkout-index", "--force", "--quiet", "-z", "--stdin")
	return files, err
}

// objects reads objects of the copy, one after the other, as it asks for them.
type objects struct {
	ctx  context.Context //nolint:containedctx // of the program, which ends with it
	cmd  *exec.Cmd
	said *words
	in   io.WriteCloser
	out  *bufio.Reader
	fed  sync.WaitGroup
}

func (c *checkout) openObjects(ctx context.Context, options ...string) (*objects, error) {
	cmd, said := c.repository.mirrors.git.command(ctx, c.call(), append([]string{"cat-file", "--batch"}, options...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	return &objects{ctx: ctx, cmd: cmd, said: said, in: in, out: bufio.NewReaderSize(out, 128<<10)}, nil
}

// askAll asks for the objects of all entries, while others are read.
func (o *objects) askAll(entries []entry) {
	o.fed.Go(func() {
		defer o.in.Close() //nolint:errcheck // the program has ended, or ends
		names := bufio.NewWriter(o.in)
		for _, e := range entries {
			if e.isSubmodule() {
				continue
			}
			if _, err := names.WriteString(e.sha + "\n"); err != nil {
				return // the program has ended, and its reader hears why
			}
		}
		_ = names.Flush()
	})
}

// close ends the program, which may have more to say.
func (o *objects) close() {
	if o.cmd.ProcessState == nil {
		_ = o.cmd.Cancel()
		_ = o.cmd.Wait()
	}
	o.fed.Wait()
}

// next begins the next object, which has a name and is of a kind, and returns its
// size.
func (o *objects) next(name, want string) (size int64, err error) {
	line, err := o.out.ReadString('\n')
	if err != nil {
		return 0, o.broken(err)
	}
	var sha, kind string
	if _, err := fmt.Sscanf(line, "%s %s %d", &sha, &kind, &size); err != nil || sha != name || kind != want {
		return 0, &Error{command: "cat-file", words: "bad object " + strings.TrimSpace(line)}
	}
	return size, nil
}

// copy copies the object that next has begun.
func (o *objects) copy(w io.Writer, size int64) error {
	switch n, err := io.CopyN(w, o.out, size); {
	case errors.Is(err, io.EOF):
		return o.broken(io.ErrUnexpectedEOF)
	case err != nil || n < size:
		return err
	}
	if _, err := o.out.Discard(1); err != nil { // a line feed
		return o.broken(err)
	}
	return nil
}

// text is a whole object, which is small.
func (o *objects) text(name, kind string, most int64) (string, error) {
	size, err := o.next(name, kind)
	if err != nil {
		return "", err
	}
	if size > most {
		return "", fault.Newf(fault.Invalid, "%s %s has %d bytes, more than %d", kind, name, size, most)
	}
	var text strings.Builder
	if err := o.copy(&text, size); err != nil {
		return "", err
	}
	return text.String(), nil
}

// broken is why the program says no more.
func (o *objects) broken(err error) error {
	if ended := o.said.explain(o.ctx, []string{"cat-file"}, o.cmd.Wait()); ended != nil {
		return ended
	}
	return &Error{command: "cat-file", words: "unable to read more: " + err.Error()}
}
