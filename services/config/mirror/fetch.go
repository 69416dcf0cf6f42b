package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/forge-ci/forge/services/kit/fault"
)

// All is a history without end.
const All = -1

// Want is what a build wants checked out.
type Want struct {
	// SHA is the full one of the commit.
	SHA string
	// Base is the branch that is known as origin/<Base>, where there is history; "" for
	// none.
	Base string
	// History is how many commits there are of each line, the last included; 0 is the
	// commit alone, without tags and without the base.
	History int
	// Tag is the name of one that names the commit, wherever it is by now, where there
	// is history; "" for none.
	Tag string
	// PullRequest is where a fork's commit is found, should the server not give it by
	// its name; 0 for none.
	PullRequest int
	// Into is the full sha of a commit that SHA is merged into first: the merge is what
	// is checked out. "" for none.
	Into string
	// Difference is what is changed on SHA first: the commit that this makes is what is
	// checked out. nil for none.
	Difference *Difference
	// Submodule says where the repository of a submodule is, by its address, and
	// refuses what must not be fetched; nil: submodules are empty folders.
	Submodule func(ctx context.Context, address string) (Remote, error)
	// Packed: files that the pack has come as the names of their objects.
	Packed bool
	// LFS: files that Git LFS keeps elsewhere are there themselves.
	LFS bool
}

const (
	keptRefs = "refs/forge/commits/" // the commits that were asked for, also those that no branch has any more
	pullRefs = "refs/forge/pulls/"
	// maxKeptRefs is how many of the former there are at most.
	maxKeptRefs = 500
	// manyPacks is from how many on they are put together.
	manyPacks = 20
)

// acquire returns the copy with what is wanted in it, and its lock, shared. It
// fetches where that must be, once however many wait.
func (m *Mirrors) acquire(ctx context.Context, remote Remote, want Want) (*repository, error) {
	r, err := m.open(ctx, remote, false)
	if err != nil {
		return nil, err
	}
	if (want.History == 0 || remote.Here) && r.has(ctx, want.SHA) {
		r.used()
		return r, nil
	}
	r.lock.free()
	if remote.Here {
		return nil, fault.Newf(fault.NotFound, "%s has no commit %s here", remote.Noun, want.SHA)
	}
	if err := m.fetch(ctx, remote, want); err != nil {
		return nil, err
	}
	if r, err = m.open(ctx, remote, false); err != nil {
		return nil, err
	}
	if !r.there() {
		r.lock.free()
		return nil, r.gone()
	}
	r.used()
	return r, nil
}

// gone is why a commit that was there is not there any more.
func (r *repository) gone() error {
	return fault.Newf(fault.Unavailable, "%s: its mirror was removed to make place for others", r.remote.Noun)
}

// fetch brings what is wanted under the lock held alone. A copy that is broken is
// made anew.
func (m *Mirrors) fetch(ctx context.Context, remote Remote, want Want) error {
	r, err := m.open(ctx, remote, true)
	if err != nil {
		return err
	}
	defer r.lock.free()
	ctx, span := m.tracer.Start(ctx, "GitHub: fetch "+remote.Noun, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	err = r.bring(ctx, want)
	if broken(err) {
		m.log.WarnContext(ctx, "mirror is broken and made anew", "repository", remote.Noun, "error", err)
		if err := r.remove(); err != nil {
			return err
		}
		err = r.bring(ctx, want)
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		if _, isGit := errors.AsType[*Error](err); isGit {
			return fetchFault(remote.Noun, err)
		}
		return fmt.Errorf("%s: %w", remote.Noun, err)
	}
	m.grown(r.name)
	if err := r.tidy(ctx); err != nil { // who waits has what he wants all the same
		m.log.WarnContext(ctx, "mirror is not tidied; it is tried again after the next fetch", "repository", remote.Noun, "error", err)
	}
	return nil
}

func (r *repository) bring(ctx context.Context, want Want) error {
	if err := r.make(ctx); err != nil {
		return err
	}
	empty, err := r.empty()
	switch {
	case err != nil:
		return err
	case want.History == 0 && r.lock.waited && r.has(ctx, want.SHA): // somebody has fetched it meanwhile
		return nil
	case want.History == 0 && (r.shallow() || empty):
		return r.fetchCommit(ctx, want, "--depth=1")
	case want.History == 0:
		return r.fetchCommit(ctx, want)
	}
	options := []string{"--prune"}
	if r.shallow() {
		options = append(options, "--unshallow")
	}
	if err := r.fetchRefs(ctx, options, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"); err != nil {
		return err
	}
	if r.has(ctx, want.SHA) {
		return r.run(ctx, "update-ref", keptRefs+want.SHA, want.SHA)
	}
	return r.fetchCommit(ctx, want)
}

// empty reports whether nothing was ever fetched: there are no folders of objects, and
// nothing in that of packs.
func (r *repository) empty() (bool, error) {
	folders, err := os.ReadDir(filepath.Join(r.path, "objects"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, &Error{command: "fetch", words: "not a git repository: it has no objects"}
	}
	if err != nil {
		return false, err
	}
	packs, err := r.packs()
	return len(folders) == 2 && packs == 0, err // info and pack
}

// fetchCommit fetches one commit by its name, or else by that of its pull request.
func (r *repository) fetchCommit(ctx context.Context, want Want, options ...string) error {
	err := r.fetchRefs(ctx, options, "+"+want.SHA+":"+keptRefs+want.SHA)
	if err == nil || want.PullRequest == 0 || !says(err, "not our ref", "unadvertised object") {
		return err
	}
	number := strconv.Itoa(want.PullRequest)
	if failed := r.fetchRefs(ctx, options, "+refs/pull/"+number+"/head:"+pullRefs+number); failed != nil {
		return failed
	}
	if !r.has(ctx, want.SHA) {
		return err
	}
	return r.run(ctx, "update-ref", keptRefs+want.SHA, want.SHA)
}

// fetchRefs fetches with the repository's token; once more where the server does not
// take that.
func (r *repository) fetchRefs(ctx context.Context, options []string, refs ...string) error {
	args := append(append([]string{"fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"}, options...), "--", r.remote.URL)
	args = append(args, refs...)
	for second := false; ; second = true {
		token, err := r.remote.Token(ctx)
		if err != nil {
			return err
		}
		c := r.call()
		c.environ = credentials(r.remote.URL, token)
		err = r.mirrors.git.run(ctx, c, args...)
		unknown := says(err, "authentication failed", "returned error: 401", "could not read username")
		if token == "" && (unknown || says(err, "repository not found", "returned error: 404", "' not found")) {
			return fault.New(fault.Denied, r.remote.Hidden)
		}
		if !unknown || second {
			return err
		}
		r.remote.Rejected(token)
	}
}

// tidy keeps a copy that is fetched often as quick as one that was just made.
// Nothing is lost by it: commits that no ref has any more stay.
func (r *repository) tidy(ctx context.Context) error {
	packs, err := r.packs()
	if err != nil {
		return err
	}
	loose, err := os.ReadDir(filepath.Join(r.path, filepath.FromSlash(keptRefs)))
	if ignoreGone(err) != nil || packs < manyPacks && len(loose) < maxKeptRefs/2 {
		return ignoreGone(err)
	}
	refs, err := r.output(ctx, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", keptRefs)
	if err != nil {
		return err
	}
	names := strings.Fields(refs)
	if len(names) > maxKeptRefs {
		var old strings.Builder
		for _, name := range names[maxKeptRefs/2:] {
			fmt.Fprintf(&old, "delete %s\n", name)
		}
		c := r.call()
		c.stdin = strings.NewReader(old.String())
		if err := r.mirrors.git.run(ctx, c, "update-ref", "--stdin"); err != nil {
			return err
		}
	}
	if err := r.run(ctx, "pack-refs", "--all"); err != nil {
		return err
	}
	if packs < manyPacks {
		return nil
	}
	return r.run(ctx, "repack", "--quiet", "-d", "--geometric=2")
}

func (r *repository) packs() (int, error) {
	packs, err := filepath.Glob(filepath.Join(r.path, "objects", "pack", "*.pack"))
	return len(packs), err
}
