package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/forge-ci/forge/services/kit/fault"
)

// shape is what a checkout has of the history.
type shape struct {
	// refs by their name; those of annotated tags are the tags' own objects.
	refs map[string]ref
	// shallow are the commits whose parents are left out.
	shallow []string
}

// ref is the object that a ref names, and the commit where that is another one.
type ref struct{ object, commit string }

// tips are what the pack is made from.
func (s *shape) tips(head string) []string {
	all := []string{head}
	for _, r := range s.refs {
		all = append(all, r.object)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *shape) packedRefs() string {
	var text strings.Builder
	text.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for _, name := range slices.Sorted(maps.Keys(s.refs)) {
		r := s.refs[name]
		fmt.Fprintf(&text, "%s %s\n", r.object, name)
		if r.commit != r.object {
			fmt.Fprintf(&text, "^%s\n", r.commit)
		}
	}
	return text.String()
}

func (s *shape) shallowFile() string {
	if len(s.shallow) == 0 {
		return ""
	}
	return strings.Join(s.shallow, "\n") + "\n"
}

// shape finds what belongs to the checkout: the base's tip, the commits within the
// history that is wanted, and the tags of these.
func (c *checkout) shape(ctx context.Context) (*shape, error) {
	s := &shape{refs: map[string]ref{}}
	if c.want.History == 0 && c.repository.beginsAt(c.want.SHA) {
		s.shallow = []string{c.want.SHA}
		return s, nil
	}
	lines := []string{c.want.SHA}
	if c.want.History != 0 && c.want.Base != "" {
		if tip, err := c.repository.output(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+c.want.Base+"^{commit}"); err == nil {
			tip = strings.TrimSpace(tip)
			s.refs["refs/remotes/origin/"+c.want.Base] = ref{tip, tip}
			lines = append(lines, tip)
		}
	}
	var within func(commit string) bool
	if c.want.History == All {
		tags, err := c.mergedTags(ctx, lines)
		if err != nil {
			return nil, err
		}
		within = func(commit string) bool { return tags[commit] }
	} else {
		known, shallow, err := c.walk(ctx, lines, max(c.want.History, 1))
		if err != nil {
			return nil, err
		}
		s.shallow = shallow
		within = func(commit string) bool { return known[commit] }
	}
	if c.want.History == 0 {
		return s, nil
	}
	tags, err := c.tags(ctx)
	if err != nil {
		return nil, err
	}
	for name, tag := range tags {
		if within(tag.commit) {
			s.refs[name] = tag
		}
	}
	if own := "refs/tags/" + c.want.Tag; c.want.Tag != "" && s.refs[own].commit != c.want.SHA {
		s.refs[own] = ref{c.want.SHA, c.want.SHA}
	}
	return s, nil
}

// tags are those of the copy that name a commit.
func (r *repository) tags(ctx context.Context) (map[string]ref, error) {
	text, err := r.output(ctx, "for-each-ref", "--format=%(refname) %(objectname) %(objecttype) %(*objectname) %(*objecttype)", "refs/tags")
	if err != nil {
		return nil, err
	}
	tags := map[string]ref{}
	for line := range strings.Lines(text) {
		switch words := strings.Fields(line); {
		case len(words) == 3 && words[2] == "commit":
			tags[words[0]] = ref{words[1], words[1]}
		case len(words) == 5 && words[4] == "commit":
			tags[words[0]] = ref{words[1], words[3]}
		}
	}
	return tags, nil
}

// mergedTags are the commits of tags that the history of some commits holds.
func (r *repository) mergedTags(ctx context.Context, commits []string) (map[string]bool, error) {
	found := map[string]bool{}
	for _, commit := range commits {
		text, err := r.output(ctx, "for-each-ref", "--merged="+commit, "--format=%(objectname) %(*objectname)", "refs/tags")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			found[words[len(words)-1]] = true
		}
	}
	return found, nil
}

// walk goes from some commits to their parents until each line has so many commits.
// shallow are those of which parents are left out.
func (c *checkout) walk(ctx context.Context, tips []string, depth int) (known map[string]bool, shallow []string, err error) {
	known = map[string]bool{}
	commits, err := c.openObjects(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer commits.close()
	layer := tips
	for ; depth > 0 && len(layer) > 0; depth-- {
		var next []string
		for _, commit := range layer {
			if known[commit] {
				continue
			}
			known[commit] = true
			of, err := commits.parents(commit)
			if err != nil {
				return nil, nil, err
			}
			if depth == 1 && len(of) > 0 {
				shallow = append(shallow, commit)
			}
			next = append(next, of...)
		}
		layer = next
	}
	slices.Sort(shallow)
	return known, slices.Compact(shallow), nil
}

// parents are those of a commit.
func (o *objects) parents(commit string) (parents []string, err error) {
	if _, err := io.WriteString(o.in, commit+"\n"); err != nil {
		return nil, o.broken(err)
	}
	text, err := o.text(commit, "commit", maxCommit)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		if name, isParent := strings.CutPrefix(line, "parent "); isParent {
			parents = append(parents, strings.TrimSpace(name))
		} else if line == "\n" {
			break
		}
	}
	return parents, nil
}

// packed is a pack of all that a checkout has, and its index: their path without suffix.
type packed struct {
	shape *shape
	path  string
}

// pack makes a pack. What lies packed already is copied as it is.
func (c *checkout) pack(ctx context.Context) (packed, error) {
	s, err := c.shape(ctx)
	if err != nil {
		return packed{}, err
	}
	var args []string
	if len(s.shallow) > 0 {
		file := filepath.Join(c.scratch, "shallow")
		if err := os.WriteFile(file, []byte(s.shallowFile()), 0o600); err != nil {
			return packed{}, err
		}
		args = append(args, "--shallow-file", file)
	}
	// What git writes meanwhile is of this checkout, and goes with it.
	objects := filepath.Join(c.scratch, "objects")
	if err := os.MkdirAll(filepath.Join(objects, "pack"), 0o700); err != nil {
		return packed{}, err
	}
	call := c.call()
	call.environ = []string{
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=core.fsync", "GIT_CONFIG_VALUE_0=none", // nobody needs it after a crash
		"GIT_OBJECT_DIRECTORY=" + objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + quoted(filepath.Join(c.repository.path, "objects")),
	}
	call.stdin = strings.NewReader(strings.Join(s.tips(c.want.SHA), "\n") + "\n")
	args = append(args, "pack-objects", "--quiet", "--revs", "--delta-base-offset", "--window=0", filepath.Join(c.scratch, "pack"))
	hash, err := c.git(ctx, call, args...)
	if err != nil {
		return packed{}, err
	}
	pack := filepath.Join(c.scratch, "pack-"+strings.TrimSpace(hash))
	info, err := os.Stat(pack + ".pack")
	if err != nil {
		return packed{}, errors.Join(err, errors.New("git pack-objects: there is no pack"))
	}
	if info.Size() > maxHistory {
		return packed{}, fault.Newf(fault.Exhausted, "the history of %s has more than %d MiB: ask for fewer commits", c.module.remote.Noun, maxHistory>>20)
	}
	return packed{s, pack}, nil
}
