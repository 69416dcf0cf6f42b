package forgexec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/dustin/go-humanize"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/forgexec/tree"
	"github.com/forge-ci/forge/services/kit/chunks"
)

// cache is one of a plan's. Whatever goes wrong with it is a line in the log.
type cache struct {
	*configv1.Cache
	key   *schedulerv1.CacheKey
	paths []string // absolute
	saved bool     // under its key, and not to be saved again
	wrong error    // why it is neither restored nor saved
}

// errNoStore is that nobody keeps anything: the plan is run without Forge.
var errNoStore = errors.New("there is no Forge that keeps anything")

// caches makes what the plan asks for concrete: hashes of the checkout as it is now,
// and paths.
func (r *runner) caches(plan *schedulerv1.Plan) []*cache {
	var all []*cache
	home := variables(joined(r.environ, plan.GetEnvironment()))["HOME"]
	for _, asked := range plan.GetCaches() {
		one := &cache{Cache: asked, key: &schedulerv1.CacheKey{Version: cacheVersion(asked)}}
		one.key.Key, one.wrong = r.workspace.filled(asked.GetKey(), plan.GetEnvironment())
		if r.store == nil {
			one.wrong = errNoStore
		}
		for _, prefix := range asked.GetRestore() {
			filled, err := r.workspace.filled(prefix, plan.GetEnvironment())
			one.key.Restore = append(one.key.Restore, filled)
			one.wrong = errors.Join(one.wrong, err)
		}
		for _, path := range asked.GetPaths() {
			at, err := r.workspace.kept(path, home)
			one.paths = append(one.paths, at)
			one.wrong = errors.Join(one.wrong, err)
		}
		all = append(all, one)
	}
	return all
}

// cacheVersion tells caches apart whose files could not stand for each other.
func cacheVersion(c *configv1.Cache) string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{runtime.GOOS, runtime.GOARCH}, c.GetPaths()...), "\x00")))
	return hex.EncodeToString(sum[:16])
}

// filled fills in ${hash:GLOBS}, which have commas between them, and variables. What it
// has filled in is not looked at again.
func (w *workspace) filled(text string, variables map[string]string) (string, error) {
	var filled strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		filled.WriteString(before)
		if !found {
			return filled.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("${%s has no end", clip(rest))
		}
		value := variables[name]
		if globs, isHash := strings.CutPrefix(name, "hash:"); isHash {
			var err error
			if value, err = w.hash(strings.Split(globs, ",")); err != nil {
				return "", fmt.Errorf("${%s}: %w", name, err)
			}
		}
		filled.WriteString(value)
		text = after
	}
}

// hash is one of the names and contents of all files that match.
func (w *workspace) hash(globs []string) (string, error) {
	names, err := w.files(globs)
	if err != nil {
		return "", err
	}
	all := sha256.New()
	for _, name := range names {
		file, err := os.Open(filepath.Join(w.path, name))
		if err != nil {
			return "", err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, file)
		if err = errors.Join(err, file.Close()); err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(all, "%x %q\n", sum.Sum(nil), name) // a hash takes everything
	}
	return hex.EncodeToString(all.Sum(nil)[:16]), nil
}

// files are the names of those that match one of the globs, each once and in order.
// None is reached through a link, and none lies in the repository.
func (w *workspace) files(globs []string) ([]string, error) {
	var names []string
	for _, glob := range globs {
		err := doublestar.GlobWalk(os.DirFS(w.path), strings.TrimPrefix(strings.TrimSpace(glob), "./"), func(name string, entry fs.DirEntry) error {
			if ofRepository(name) {
				if entry.IsDir() {
					return doublestar.SkipDir
				}
				return nil
			}
			if entry.Type().IsRegular() {
				names = append(names, name)
			}
			return nil
		}, doublestar.WithNoFollow(), doublestar.WithFailOnIOErrors())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	slices.Sort(names)
	links := map[string]bool{".": false}
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return w.behindLink(links, filepath.Dir(name)) }), nil
}

// behindLink reports whether a folder of the workspace is a link, or reached through
// one. What was found before is in known.
func (w *workspace) behindLink(known map[string]bool, folder string) bool {
	if is, ok := known[folder]; ok {
		return is
	}
	info, err := os.Lstat(filepath.Join(w.path, folder))
	known[folder] = err != nil || !info.IsDir() || w.behindLink(known, filepath.Dir(folder))
	return known[folder]
}

// kept is where a path of a cache lies. An error says, for people, why nothing there
// may be kept or made.
func (w *workspace) kept(path, home string) (string, error) {
	at := path
	switch rest, below := strings.CutPrefix(path, "~/"); {
	case below && home == "":
		return "", fmt.Errorf("%s: HOME is not set", path)
	case below:
		at = filepath.Join(home, rest)
	case !filepath.IsAbs(path):
		at = filepath.Join(w.path, path)
	}
	at, top := resolved(at), resolved(w.path)
	within := func(a, b string) bool { return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/") }
	switch {
	case within(top, at):
		return "", fmt.Errorf("%s holds the workspace: name the folders that are to be kept", path)
	case within(at, filepath.Join(top, repositoryFolder)):
		return "", fmt.Errorf("%s lies in the repository of the workspace", path)
	}
	for _, system := range []string{"/proc", "/sys", "/dev"} {
		if within(at, system) {
			return "", fmt.Errorf("%s is the system's", path)
		}
	}
	return at, nil
}

// resolved follows the links of as much of a path as there is.
func resolved(path string) string {
	path = filepath.Clean(path)
	for rest := ""; ; {
		if at, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(at, rest)
		}
		dir := filepath.Dir(path)
		if dir == path {
			return filepath.Join(path, rest)
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = dir
	}
}

// restore brings back what was saved.
func (r *runner) restore(ctx context.Context, plan *schedulerv1.Plan, caches []*cache) {
	ctx, cancel := context.WithTimeout(ctx, withinOf(plan))
	defer cancel()
	for _, one := range caches {
		begin := time.Now()
		result, size := schedulerv1.Kept_RESULT_BROKEN, int64(0)
		found, err := (*schedulerv1.GetContentResponse_Found)(nil), one.wrong
		if err == nil {
			found, err = r.store.get(ctx, cachePatience, &schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Cache{Cache: one.key}}, one.paths)
		}
		name := one.key.GetKey()
		if one.wrong != nil {
			name = one.GetKey()
		}
		var line string
		switch {
		case status.Code(err) == codes.NotFound:
			result, line = schedulerv1.Kept_RESULT_MISS, plainly(err)
		case err != nil:
			line = "not restored, the build goes on without: " + plainly(err)
		case found.GetExact():
			one.saved = true
			result, size, line = schedulerv1.Kept_RESULT_HIT, found.GetSize(), "restored, "+amount(found.GetSize(), begin)
		default:
			result, size = schedulerv1.Kept_RESULT_PARTIAL_HIT, found.GetSize()
			line = fmt.Sprintf("restored from %s, %s", found.GetKey(), amount(size, begin))
		}
		r.notices = append(r.notices, r.masker.String(fmt.Sprintf("forge: cache %s: %s", name, line)))
		r.kept(result, size, begin)
	}
}

// save keeps what is at the paths of those caches that are to be saved.
func (s *sequence) save(ctx context.Context, caches []*cache, passed bool) {
	for _, one := range caches {
		if one.saved || one.wrong != nil || !passed && !one.GetSaveAlways() {
			continue
		}
		begin := time.Now()
		listing, err := tree.List(one.paths, mostEntries)
		if err == nil && listing.Files == 0 {
			s.sayf("forge: cache %s: not saved, there is nothing at %s", one.key.GetKey(), strings.Join(one.GetPaths(), ", "))
			continue
		}
		var stored int64
		if err == nil {
			stored, err = s.store.put(ctx, cachePatience, &schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Cache{Cache: one.key}}, listing)
		}
		switch {
		case status.Code(err) == codes.AlreadyExists:
			s.sayf("forge: cache %s: not saved, another build has saved it meanwhile", one.key.GetKey())
		case err != nil:
			s.sayf("forge: cache %s: not saved: %s", one.key.GetKey(), plainly(err))
			s.kept(schedulerv1.Kept_RESULT_BROKEN, 0, begin)
		default:
			s.sayf("forge: cache %s: saved, %s, %s of it new", one.key.GetKey(), amount(listing.Size, begin), humanize.IBytes(uint64(max(stored, 0))))
			s.kept(schedulerv1.Kept_RESULT_SAVED, listing.Size, begin)
		}
	}
}

func (r *runner) kept(result schedulerv1.Kept_Result, size int64, begin time.Time) {
	r.report(&schedulerv1.Report{Event: &schedulerv1.Report_Kept{Kept: &schedulerv1.Kept{
		Result: result, Size: size, Took: durationpb.New(time.Since(begin)),
	}}})
}

// amount is how much was moved, and how long that took.
func amount(size int64, begin time.Time) string {
	return fmt.Sprintf("%s in %s", humanize.IBytes(uint64(max(size, 0))), time.Since(begin).Round(100*time.Millisecond))
}

// plainly is an error for people.
func plainly(err error) string {
	switch {
	case errors.Is(err, chunks.ErrBroken):
		return "it is broken: " + err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "it took too long"
	}
	text, _ := plain(err)
	return text
}
