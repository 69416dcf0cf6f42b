package mirror

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/forge-ci/forge/services/kit/fault"
)

// ConflictError says that two commits cannot be merged.
type ConflictError struct {
	// Files are those that both have changed, in git's order.
	Files []string
}

func (e *ConflictError) Error() string {
	const most = 10
	var named []string
	for _, name := range e.Files[:min(len(e.Files), most)] {
		if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
			name = quoted // nobody's terminal, page or status gets anything else
		}
		named = append(named, name)
	}
	text := "conflicts in " + strings.Join(named, ", ")
	if more := len(e.Files) - len(named); more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	return text
}

// Merge merges a commit into another, which becomes the first parent, and returns
// the commit that results: of the same two always the same. A ConflictError says
// that a person has to.
func (m *Mirrors) Merge(ctx context.Context, remote Remote, want Want) (sha string, err error) {
	r, err := m.acquireMerge(ctx, remote, &want)
	if err != nil {
		return "", err
	}
	r.lock.free()
	return want.SHA, nil
}

// acquireMerge has the merge that is wanted made, and be what is wanted.
func (m *Mirrors) acquireMerge(ctx context.Context, remote Remote, want *Want) (*repository, error) {
	r, err := m.acquireBoth(ctx, remote, *want)
	if err != nil {
		return nil, err
	}
	merged, err := r.merge(ctx, want.Into, want.SHA)
	if err != nil {
		r.lock.free()
		return nil, m.unmade(ctx, remote, err)
	}
	want.SHA = merged
	return r, nil
}

// unmade is why a commit could not be made in a copy. Where git could not, the copy may
// be broken.
func (m *Mirrors) unmade(ctx context.Context, remote Remote, err error) error {
	if full(err) {
		return fullFault(remote.Noun, err)
	}
	if _, isGit := errors.AsType[*Error](err); isGit {
		m.suspect(ctx, remote)
		return fault.Newf(fault.Unavailable, "mirror of %s: %w", remote.Noun, err)
	}
	return err
}

// acquireBoth returns the copy with both commits and their history in it. Several ask
// for each merge; GitHub is asked where one of the commits is not there yet.
func (m *Mirrors) acquireBoth(ctx context.Context, remote Remote, want Want) (*repository, error) {
	r, err := m.open(ctx, remote, false)
	if err != nil {
		return nil, err
	}
	if !r.shallow() && r.has(ctx, want.SHA) && r.has(ctx, want.Into) {
		r.used()
		return r, nil
	}
	r.lock.free()
	if r, err = m.acquire(ctx, remote, Want{SHA: want.SHA, History: All, PullRequest: want.PullRequest}); err != nil {
		return nil, err
	}
	if r.has(ctx, want.Into) {
		return r, nil
	}
	r.lock.free() // the base was rewritten since
	if r, err = m.acquire(ctx, remote, Want{SHA: want.Into, History: All}); err != nil {
		return nil, fmt.Errorf("the base %s: %w", want.Into, err)
	}
	return r, nil
}

// merge makes the commit. It writes objects alone, which many may do at once.
func (r *repository) merge(ctx context.Context, base, head string) (string, error) {
	if r.run(ctx, "merge-base", "--is-ancestor", base, head) == nil {
		return head, nil // there is nothing to merge
	}
	cmd, said := r.mirrors.git.command(ctx, r.call(), "merge-tree", "--write-tree", "--no-messages", "--name-only", "-z", "--allow-unrelated-histories", base, head)
	text, err := cmd.Output()
	fields := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00") // the tree, then files in conflict
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.ExitCode() == 1 && len(fields) > 1 {
		return "", &ConflictError{Files: fields[1:]}
	}
	if err != nil {
		return "", said.explain(ctx, []string{"merge-tree"}, err)
	}
	when, err := r.output(ctx, "show", "--no-patch", "--format=%ct", head)
	if err != nil {
		return "", err
	}
	c := r.call()
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		c.environ = append(c.environ, "GIT_"+who+"_NAME=Forge", "GIT_"+who+"_EMAIL=forge@localhost", "GIT_"+who+"_DATE="+strings.TrimSpace(when)+" +0000")
	}
	merged, err := r.mirrors.git.output(ctx, c, "commit-tree", "-p", base, "-p", head, "-m", fmt.Sprintf("Merge %s into %s", head, base), strings.TrimSpace(fields[0]))
	return strings.TrimSpace(merged), err
}
