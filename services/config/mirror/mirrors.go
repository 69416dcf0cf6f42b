package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config is what Mirrors need.
type Config struct {
	// Dir holds the copies. Processes may share it.
	Dir string
	// MaxBytes is how much disk the copies may take: the least recently used go
	// beyond, but for the one that is in use. 0 keeps none longer than its use.
	MaxBytes int64
	// HTTP fetches what Git LFS keeps. Default: http.DefaultClient.
	HTTP *http.Client
	// Patience is how long a server may send next to nothing before a fetch is broken
	// off, in whole seconds. Default: a minute.
	Patience time.Duration
	// Tracer and Log may be nil.
	Tracer trace.TracerProvider
	Log    *slog.Logger
}

// Mirrors are the copies.
type Mirrors struct {
	dir      string
	maxBytes int64
	log      *slog.Logger
	git      *git
	http     *http.Client
	patience time.Duration
	tracer   trace.Tracer

	mu    sync.Mutex
	sizes map[string]int64 // of copies, as last measured
}

const (
	repositorySuffix = ".git"
	lockSuffix       = ".lock"
	scratchFolder    = "scratch"
	// strayAfter is the age of a scratch folder whose owner was killed.
	strayAfter = 24 * time.Hour
)

// New says at once where git is missing, and removes what killed processes left.
func New(ctx context.Context, c Config) (*Mirrors, error) {
	patience := cmp.Or(c.Patience, time.Minute)
	program, err := findGit(ctx, patience)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("mirrors: %w", err)
	}
	scratch := filepath.Join(dir, scratchFolder)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, fmt.Errorf("mirrors: %w", err)
	}
	entries, err := os.ReadDir(scratch)
	if err != nil {
		return nil, fmt.Errorf("mirrors: %w", err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > strayAfter {
			if err := os.RemoveAll(filepath.Join(scratch, entry.Name())); err != nil {
				return nil, fmt.Errorf("mirrors: %w", err)
			}
		}
	}
	return &Mirrors{
		dir: dir, maxBytes: c.MaxBytes, git: program, sizes: map[string]int64{},
		http: cmp.Or(c.HTTP, http.DefaultClient), patience: patience, tracer: tracer(c.Tracer),
		log: cmp.Or(c.Log, slog.New(slog.DiscardHandler)),
	}, nil
}

func tracer(from trace.TracerProvider) trace.Tracer {
	if from == nil {
		from = noop.NewTracerProvider()
	}
	return from.Tracer("forge/config")
}

// Remote is where a repository is.
type Remote struct {
	// ID is the repository's, which outlives its name.
	ID int64
	// URL is what git fetches, such as https://github.com/octo/cat.git.
	URL string
	// Noun is what errors call the repository.
	Noun string
	// Token returns a token that reads it, or "" where none is needed. Rejected is
	// told of one that the server did not take.
	Token    func(context.Context) (string, error)
	Rejected func(token string)
	// Hidden is what errors say of one that is not there for somebody without a token.
	Hidden string
	// Here: whoever made the copy, at Path, has put all into it that is wanted, and
	// nothing is ever fetched. LFS is the folder of what Git LFS keeps for it.
	Here bool
	LFS  string
}

// Path is where the copy of a repository is, for who makes it: a Remote that is Here.
func (m *Mirrors) Path(remote Remote) string { return m.path(remote.name()) }

// repository is a copy under its lock.
type repository struct {
	mirrors *Mirrors
	remote  Remote
	name    string // of its folder
	path    string
	lock    *lock
}

// open takes the lock of a copy, which need not be there.
func (m *Mirrors) open(ctx context.Context, remote Remote, alone bool) (*repository, error) {
	held, err := take(ctx, m.lockFile(remote.name()), alone)
	if err != nil {
		return nil, fmt.Errorf("mirror of %s: %w", remote.Noun, err)
	}
	return &repository{mirrors: m, remote: remote, name: remote.name(), path: m.path(remote.name()), lock: held}, nil
}

// name is that of its copy.
func (r Remote) name() string { return strconv.FormatInt(r.ID, 10) }

// path is where a copy is, lockFile what its lock is on.
func (m *Mirrors) path(name string) string { return filepath.Join(m.dir, name+repositorySuffix) }

func (m *Mirrors) lockFile(name string) string { return filepath.Join(m.dir, name+lockSuffix) }

func (r *repository) call() call { return call{repository: r.path, lock: r.lock} }

func (r *repository) run(ctx context.Context, args ...string) error {
	return r.mirrors.git.run(ctx, r.call(), args...)
}

func (r *repository) output(ctx context.Context, args ...string) (string, error) {
	return r.mirrors.git.output(ctx, r.call(), args...)
}

// there reports whether the copy was made.
func (r *repository) there() bool {
	_, err := os.Stat(filepath.Join(r.path, "HEAD"))
	return err == nil
}

// shallow reports whether the copy lacks history.
func (r *repository) shallow() bool {
	_, err := os.Stat(filepath.Join(r.path, "shallow"))
	return err == nil
}

// beginsAt reports whether the copy is known to lack the parents of a commit: it has
// some, and need not be asked for them.
func (r *repository) beginsAt(sha string) bool {
	text, err := os.ReadFile(filepath.Join(r.path, "shallow"))
	return err == nil && slices.Contains(strings.Fields(string(text)), sha)
}

// has reports whether a commit and what it holds are there: git stores what it
// fetches once all of it has come.
func (r *repository) has(ctx context.Context, sha string) bool {
	return r.there() && r.run(ctx, "cat-file", "-e", sha+"^{commit}") == nil
}

// make makes an empty copy, whole or not at all, and clears away what a killed git left.
// The lock is held alone.
func (r *repository) make(ctx context.Context) error {
	if r.there() {
		return r.clearLocks()
	}
	if err := os.RemoveAll(r.path); err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Join(r.mirrors.dir, scratchFolder), "mirror-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made) //nolint:errcheck // what stays is removed at the next start
	if err := r.mirrors.git.run(ctx, call{lock: r.lock}, "init", "--quiet", "--bare", "--template=", made); err != nil {
		return err
	}
	return os.Rename(made, r.path)
}

// clearLocks removes git's own locks and half-written packs: who has this lock alone
// knows that nobody works on the copy.
func (r *repository) clearLocks() error {
	return filepath.WalkDir(r.path, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := entry.Name()
		if !entry.IsDir() && (strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_")) {
			return os.Remove(path) //nolint:gosec // the folder is Forge's own
		}
		return nil
	})
}

// remove removes the copy. The lock is held alone.
func (r *repository) remove() error {
	r.mirrors.grown(r.name)
	if err := errors.Join(os.RemoveAll(r.path), os.RemoveAll(r.mirrors.lfs(r.name))); err != nil {
		return fmt.Errorf("remove the mirror of %s: %w", r.remote.Noun, err)
	}
	return nil
}

// used notes the time of a use, by which the least recently used are told.
func (r *repository) used() {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(r.path, "HEAD"), now, now) // it may be removed too early, and is fetched again
}

// grown has a copy measured anew.
func (m *Mirrors) grown(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sizes, name)
}

// lfs is where the files are that Git LFS keeps for a repository.
func (m *Mirrors) lfs(name string) string { return filepath.Join(m.dir, lfsFolder, name) }

func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return ignoreGone(err)
	})
	return size, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copied is a copy as it lies on the disk.
type copied struct {
	name string
	size int64
	used time.Time
}

// prune removes the least recently used copies until the others fit; none that is in
// use. Where the disk is full, half of what there is has to do, without the one that
// needed it.
func (m *Mirrors) prune(ctx context.Context, own string, full bool) error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("mirrors: %w", err)
	}
	var all []copied
	var total int64
	for _, entry := range entries {
		name, isCopy := strings.CutSuffix(entry.Name(), repositorySuffix)
		if !isCopy {
			continue
		}
		one, err := m.look(name)
		if err != nil {
			return fmt.Errorf("mirrors: %w", err)
		}
		all, total = append(all, one), total+one.size
	}
	most := m.maxBytes
	if full {
		most = min(most, total/2)
	}
	slices.SortFunc(all, func(a, b copied) int { return a.used.Compare(b.used) })
	for _, one := range all {
		if total <= most {
			return nil
		}
		if full && one.name == own && total <= m.maxBytes {
			continue
		}
		gone, err := m.removeUnused(ctx, one.name)
		if err != nil {
			return err
		}
		if gone {
			total -= one.size
			m.log.InfoContext(ctx, "mirror removed: others need its place", "repository_id", one.name, "bytes", one.size)
		}
	}
	return nil
}

func (m *Mirrors) look(name string) (copied, error) {
	path, one := m.path(name), copied{name: name}
	if info, err := os.Stat(filepath.Join(path, "HEAD")); err == nil {
		one.used = info.ModTime()
	}
	m.mu.Lock()
	size, known := m.sizes[name]
	m.mu.Unlock()
	if known {
		one.size = size
		return one, nil
	}
	for _, part := range []string{path, m.lfs(name)} {
		size, err := sizeOf(part)
		if err != nil {
			return one, err
		}
		one.size += size
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[name] = one.size
	return one, nil
}

// removeUnused removes a copy, unless somebody has its lock.
func (m *Mirrors) removeUnused(ctx context.Context, name string) (gone bool, err error) {
	at, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	held, err := take(at, m.lockFile(name), true)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer held.free()
	r := &repository{mirrors: m, remote: Remote{Noun: name}, name: name, path: m.path(name), lock: held}
	return true, r.remove()
}
