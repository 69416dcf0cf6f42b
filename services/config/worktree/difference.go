package worktree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// Pushed is a commit that origin is known to have, and a branch of it there.
type Pushed struct{ SHA, Branch string }

// PushedBase is the newest commit of those HEAD stands on that origin has, as far as is known
// here.
func (s *Snapshot) PushedBase(ctx context.Context) (Pushed, error) {
	text, err := s.git.run(ctx, "rev-list", "--first-parent", "--boundary", s.Head, "--not", "--remotes=origin")
	if err != nil {
		return Pushed{}, err
	}
	base := Pushed{SHA: s.Head}
	if lines := strings.Fields(text); len(lines) > 0 {
		last := lines[len(lines)-1]
		sha, boundary := strings.CutPrefix(last, "-")
		if !boundary {
			return Pushed{}, errors.New("no commit of HEAD's history is known to be pushed: git fetch origin, or git push")
		}
		base.SHA = sha
	}
	const remote = "refs/remotes/origin/"
	text, err = s.git.run(ctx, "for-each-ref", "--contains="+base.SHA, "--format=%(refname)", remote)
	if err != nil {
		return Pushed{}, err
	}
	var branches []string
	for ref := range strings.FieldsSeq(text) {
		if name := strings.TrimPrefix(ref, remote); name != "HEAD" {
			branches = append(branches, name)
		}
	}
	switch {
	case len(branches) == 0:
		return Pushed{}, errors.New("no branch of origin is known that has a commit of HEAD's history: git fetch origin")
	case slices.Contains(branches, s.DefaultBranch):
		base.Branch = s.DefaultBranch
	default:
		base.Branch = branches[0]
	}
	return base, nil
}

// Since is what the snapshot has other than a commit, as a server can make it again.
func (s *Snapshot) Since(ctx context.Context, base string) (*configv1.Difference, error) {
	text, err := s.bare.run(ctx, "diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", base, s.SHA, "--")
	if err != nil {
		return nil, err
	}
	d := &configv1.Difference{}
	fields := strings.Split(text, "\x00") // about it, from its old mode to its status; then its path
	for n := 0; n+1 < len(fields); n += 2 {
		words, name := strings.Fields(fields[n]), fields[n+1]
		if len(words) != 5 {
			return nil, fmt.Errorf("git diff-tree: %q", fields[n])
		}
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("%q is no name in UTF-8, and cannot be sent", name)
		}
		if words[0] == ":"+submoduleMode || words[1] == submoduleMode {
			return nil, fmt.Errorf("the submodule %s is not as the pushed commit has it, and cannot be sent: push it", name)
		}
		c := &configv1.Difference_Change{Path: name, Mode: map[string]configv1.Difference_Mode{
			"100644": configv1.Difference_MODE_FILE, "100755": configv1.Difference_MODE_EXECUTABLE, "120000": configv1.Difference_MODE_LINK, "000000": configv1.Difference_MODE_GONE,
		}[words[1]]}
		if c.GetMode() != configv1.Difference_MODE_GONE {
			content, err := s.bare.run(ctx, "cat-file", "blob", words[3])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			c.Content = []byte(content)
		}
		d.Changes = append(d.Changes, c)
	}
	return d, nil
}
