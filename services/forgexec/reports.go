package forgexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/forge-ci/forge/services/forgexec/testreport"
)

// What the reports of one attempt may be.
const (
	maxReportFiles = 1000
	maxReportSize  = 512 << 20 // bytes of one file
	maxTests       = 200_000
	maxFindings    = 5000
	// reportsTime is how long it may take to find and read them.
	reportsTime = 30 * time.Second
	// maxReportLines is how many lines the log gets of what is wrong with them.
	maxReportLines = 20
)

// reportKind is a kind of files, and what reads one.
type reportKind struct {
	name  string
	globs []string
	read  func(io.Reader, testreport.Report) error
}

// readReports tells what the files say that the plan names as reports. Whatever is
// wrong with them is a line in the log and changes no build.
func (s *sequence) readReports() {
	of := s.plan.GetReports()
	if of == nil || s.last == 0 {
		return
	}
	ctx := s.ctx
	if s.stopped == nil && ctx.Err() != nil { // since the last step
		ctx = halted(ctx).late
	} else if s.stopped != nil {
		ctx = s.late
	}
	if ctx == nil { // the container itself is to go
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportsTime)
	defer cancel()
	s.processes.killRest() // or files could change while they are read
	root, err := os.OpenRoot(s.workspace.path)
	if err != nil {
		s.sayf("forge: no report is read: %v", err)
		return
	}
	defer root.Close() //nolint:errcheck // it was only read
	all := &reports{sequence: s, ctx: ctx, root: root, told: newTests(s)}
	for _, kind := range []reportKind{
		{"junit", of.GetJunit(), testreport.JUnit}, {"go", of.GetGo(), testreport.Go}, {"sarif", of.GetSarif(), testreport.SARIF},
	} {
		all.readKind(kind)
	}
	all.told.send()
	all.sum()
}

// reports are those of an attempt while they are read.
type reports struct {
	*sequence
	ctx   context.Context //nolint:containedctx // it ends with the reading
	root  *os.Root
	told  *tests
	files int
	lines int // about what is wrong
}

func (r *reports) complainf(format string, args ...any) {
	if r.lines++; r.lines == maxReportLines {
		format, args = "what else is wrong with reports is left out", nil
	}
	if r.lines <= maxReportLines {
		r.sayf("forge: "+format, args...)
	}
}

func (r *reports) readKind(kind reportKind) {
	seen := map[string]bool{}
	for _, glob := range kind.globs {
		matched := false
		// Links are not followed on the way, and read in their place by nobody.
		err := doublestar.GlobWalk(boundedFS{r.root.FS(), r.ctx}, glob, func(name string, entry fs.DirEntry) error {
			if entry.IsDir() || seen[name] {
				matched = matched || seen[name]
				return r.ctx.Err()
			}
			seen[name], matched = true, true
			if r.files++; r.files > maxReportFiles {
				return errTooManyReports
			}
			if err := r.readFile(kind, name); err != nil {
				r.complainf("%s is no report that can be read: %s", quoted(name), clipText(err.Error(), 300))
			}
			return r.ctx.Err()
		}, doublestar.WithNoFollow())
		switch {
		case errors.Is(err, errTooManyReports):
			r.complainf("reports: more than %d files match; those after that are left out", maxReportFiles)
			return
		case r.ctx.Err() != nil:
			r.complainf("reports: reading them took more than %s; the rest is left out", short(reportsTime))
			return
		case err != nil:
			r.complainf("reports.%s: %s: %v", kind.name, quoted(glob), err)
		case !matched:
			r.complainf("reports.%s: no file matches %s", kind.name, quoted(glob))
		}
	}
}

var errTooManyReports = errors.New("too many reports")

func (r *reports) readFile(kind reportKind, name string) error {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	err = kind.read(boundedReader{file, r.ctx}, testreport.Report{
		Path: name, Workspace: r.workspace.path, Exists: r.exists, Test: r.told.test, Finding: r.told.finding,
	})
	if r.ctx.Err() != nil { // the loop says so
		return nil
	}
	return err
}

// open opens a plain file that no link leads to.
func (r *reports) open(name string) (*os.File, error) {
	for at := name; at != "."; at = path.Dir(at) {
		info, err := r.root.Lstat(at)
		switch {
		case err != nil:
			return nil, reason(err)
		case info.Mode()&fs.ModeSymlink != 0:
			return nil, errors.New("a link leads to it, which is not followed")
		case at == name && !info.Mode().IsRegular():
			return nil, errors.New("it is no plain file")
		case at == name && info.Size() > maxReportSize:
			return nil, fmt.Errorf("it has %d MiB, and %d are read at most", info.Size()>>20, maxReportSize>>20)
		}
	}
	file, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, reason(err)
	}
	return file, nil
}

// reason is an error without the call and the path, which have been said.
func reason(err error) error {
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
		return wrapped.Err
	}
	return err
}

// exists reports whether a file of the workspace has this path.
func (r *reports) exists(name string) bool {
	info, err := r.root.Lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// sum says in one line what was read.
func (r *reports) sum() {
	t := r.told
	if t.count+t.found > 0 {
		line := fmt.Sprintf("forge: reports: %d tests, %d of them failed", t.count, t.failed)
		if t.found > 0 {
			line += fmt.Sprintf("; %d findings", t.found)
		}
		if t.leftOut > 0 {
			line += fmt.Sprintf("; %d more of both are left out, for they are too many", t.leftOut)
		}
		r.sayf("%s", line)
	}
}

func clipText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// boundedFS is a file system until ctx ends.
type boundedFS struct {
	fs.FS
	ctx context.Context //nolint:containedctx // it bounds what only takes a file system
}

func (b boundedFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	return fs.ReadDir(b.FS, name)
}

func (b boundedFS) Stat(name string) (fs.FileInfo, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	return fs.Lstat(b.FS, name)
}

// boundedReader reads until ctx ends.
type boundedReader struct {
	io.Reader
	ctx context.Context //nolint:containedctx // it bounds what only takes a reader
}

func (b boundedReader) Read(into []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(into)
}
