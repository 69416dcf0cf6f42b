package buildfile

import (
	"cmp"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/nearest"
)

// file is one file while it is read: the readers of its values.
type file struct {
	*reader
	steps     int
	defaults  fields
	pipelines []*pipeline
	images    map[*configv1.ImageStep]*yaml.Node
}

// reader reads nodes, whatever their meaning.
type reader struct {
	problems []*Problem
	expanded int                // bytes that aliases have stood for
	sizes    map[*yaml.Node]int // of what aliases stand for
	cell     *cell              // what ${…} stands for; nil where it is text like any other
	blamed   map[*yaml.Node]bool
	holes    map[*yaml.Node]bool
	weights  map[*yaml.Node]int
	guesses  int // at what was meant
	filled   int // bytes that were read once more for a cell
	grown    int // bytes of all jobs
}

// complainf notes a problem. Of what is read for each cell anew, the first cell's
// counts.
func (r *reader) complainf(n *yaml.Node, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if r.cell != nil {
		if r.blamed[n] {
			return
		}
		r.blamed[n] = true
		if strings.Contains(n.Value, hole) {
			message += " (in " + clip(r.cell.title) + ")"
		}
	}
	r.problems = append(r.problems, problemAt(n.Line, n.Column, message))
}

// key is one key of a mapping that is read into a T.
type key[T any] struct {
	name    string
	missing string // why it cannot be left out; empty: it can
	read    func(f *file, path string, n *yaml.Node, into T)
	or      string                     // the key that can stand in its place, and not beside it
	with    string                     // the key without which it means nothing
	spared  func(f *file, into T) bool // whether it can be left out after all
}

// later is said of keys that have a name and no meaning yet.
const later = "Forge does not have this yet: leave it out"

// given are the keys that a mapping has, or seems to mean.
type given map[string]*yaml.Node

// readMapping reads a mapping with a fixed set of keys. path says in problems
// what it is.
func readMapping[T any](f *file, path string, n *yaml.Node, into T, keys []key[T]) given {
	before := len(f.problems)
	entries, ok := f.entries(path, n)
	if !ok {
		return nil
	}
	missing := len(f.problems) == before // else what is missing may be in what could not be read
	all := given{}
	for _, e := range entries {
		if len(f.problems) >= enough {
			return nil
		}
		all[e.name] = e.key
		switch k, known := lookup(keys, e.name); {
		case known && k.read == nil:
			f.complainf(e.key, "%s: "+later, e.path)
		case known:
			k.read(f, e.path, e.value, into)
		default:
			if meant := unknown(f, e, names(keys)); meant != "" {
				all[meant] = e.key
			}
		}
	}
	for _, k := range keys {
		switch here := all[k.name]; {
		case missing && k.missing != "" && here == nil && all[k.or] == nil && (k.spared == nil || !k.spared(f, into)):
			f.complainf(n, "%s is required: %s", join(path, k.name), k.missing)
		case k.or != "" && here != nil && all[k.or] != nil:
			f.complainf(all[k.or], "%s and %s cannot stand side by side: keep one of them", join(path, k.name), k.or)
		case missing && k.with != "" && here != nil && all[k.with] == nil:
			f.complainf(here, "%s means nothing without %s: give it one, or leave it out", join(path, k.name), k.with)
		}
	}
	return all
}

// unknown complains of a key, and is the one that was probably meant.
func unknown(f *file, e entry, known []string) string {
	meant := nearest.Name(e.name, known, max(2, len(e.name)/3))
	if meant == "" {
		f.complainf(e.key, "unknown key %q: the keys here are %s", clip(e.name), strings.Join(known, ", "))
	} else {
		f.complainf(e.key, "unknown key %q, did you mean %q?", clip(e.name), meant)
	}
	return meant
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

func lookup[T any](keys []key[T], name string) (key[T], bool) {
	for _, k := range keys {
		if k.name == name {
			return k, true
		}
	}
	return key[T]{}, false
}

// names are the keys that can be written.
func names[T any](keys []key[T]) []string {
	all := make([]string, 0, len(keys))
	for _, k := range keys {
		if k.read != nil {
			all = append(all, k.name)
		}
	}
	return all
}

// items are those of a list; a single value is a list of one.
func (r *reader) items(path string, n *yaml.Node) []*yaml.Node {
	n = r.resolve(n)
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode && n.ShortTag() != "!!null":
		return []*yaml.Node{n}
	case len(n.Content) == 0:
		r.complainf(n, "%s is empty: give it at least one value", path)
	}
	return n.Content
}

// none reports whether a list is there and empty: in a job it takes the place of
// the file's.
func (r *reader) none(n *yaml.Node) bool {
	n = r.place(n)
	return n.Kind == yaml.SequenceNode && len(n.Content) == 0
}

// place is where a value is written.
func (r *reader) place(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text is a value that YAML reads as text; bare is for those that may look like
// a number or a truth as well.
func (r *reader) text(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	n, ok := r.plain(path, n)
	if !ok {
		return "", n, false
	}
	return r.fill(path, n)
}

// plain is a value that YAML reads as text, before ${…} is filled in.
func (r *reader) plain(path string, n *yaml.Node) (*yaml.Node, bool) {
	n, ok := r.expect(path, n, yaml.ScalarNode, "text")
	if !ok {
		return n, false
	}
	if n.ShortTag() != "!!str" {
		r.complainf(n, "%s: expected text, found %s: put it in quotes", path, describe(n))
		return n, false
	}
	return n, true
}

func (r *reader) bare(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	n, ok := r.expect(path, n, yaml.ScalarNode, "text")
	if !ok {
		return "", n, false
	}
	return r.fill(path, n)
}

// noNUL holds of all that becomes an argument or a variable of a process.
func (r *reader) noNUL(path string, n *yaml.Node) bool {
	if strings.ContainsRune(n.Value, 0) {
		r.complainf(n, "%s: text cannot hold the character 0", path)
		return false
	}
	return true
}

// expect is the node, its alias resolved, if it is of the kind.
func (r *reader) expect(path string, n *yaml.Node, kind yaml.Kind, what string) (*yaml.Node, bool) {
	n = r.resolve(n)
	path = cmp.Or(path, "the file")
	switch {
	case n == nil:
		return nil, false
	case n.ShortTag() == "!!null":
		r.complainf(n, "%s: expected %s, found nothing", path, what)
		return nil, false
	case n.Kind != kind:
		r.complainf(n, "%s: expected %s, found %s", path, what, describe(n))
		return nil, false
	}
	return n, true
}

// resolve is what an alias stands for, or the node itself; nil after a problem.
func (r *reader) resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		within := r.expanded <= maxExpanded
		r.expanded += r.size(n.Alias)
		if r.expanded > maxExpanded {
			if within {
				r.complainf(n, "aliases stand for more than 1 MiB in all")
			}
			return nil
		}
		n = n.Alias
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge", "!!seq", "!!map":
	default:
		r.complainf(n, "tags such as %s are not read", clip(n.Tag))
		return nil
	}
	return n
}

// size counts what an alias stands for; aliases within count when they are
// resolved themselves.
func (r *reader) size(n *yaml.Node) int {
	if known, ok := r.sizes[n]; ok {
		return known
	}
	size := 1 + len(n.Value)
	for _, child := range n.Content {
		size += r.size(child)
	}
	r.sizes[n] = size
	return size
}

func describe(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!map":
		return "keys with values"
	case "!!seq":
		return "a list"
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!timestamp":
		return "the date " + clip(n.Value)
	}
	return fmt.Sprintf("the text %q", clip(n.Value))
}

// clip keeps a stranger's text from filling a problem.
func clip(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}
