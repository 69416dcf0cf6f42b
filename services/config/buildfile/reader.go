package buildfile

import (
	"cmp"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/forge-ci/forge/services/kit/nearest"
)

// file is one file while it is read.
type file struct {
	problems []*Problem
	steps    int
	expanded int                // bytes that aliases have stood for
	sizes    map[*yaml.Node]int // of what aliases stand for
}

func (f *file) complainf(n *yaml.Node, format string, args ...any) {
	f.problems = append(f.problems, problemAt(n.Line, n.Column, fmt.Sprintf(format, args...)))
}

// key is one key of a mapping that is read into a T.
type key[T any] struct {
	name    string
	missing string // why it cannot be left out; empty: it can
	read    func(f *file, path string, n *yaml.Node, into T)
}

// readMapping reads a mapping with a fixed set of keys. path says in problems
// what it is.
func readMapping[T any](f *file, path string, n *yaml.Node, into T, keys []key[T]) {
	before := len(f.problems)
	entries, ok := f.entries(path, n)
	if !ok {
		return
	}
	missing := len(f.problems) == before // else what is missing may be in what could not be read
	given := map[string]bool{}
	for _, e := range entries {
		if len(f.problems) >= enough {
			return
		}
		given[e.name] = true
		if k, known := lookup(keys, e.name); known {
			k.read(f, e.path, e.value, into)
			continue
		}
		meant := nearest.Name(e.name, names(keys), max(2, len(e.name)/3))
		given[meant] = true
		if meant == "" {
			f.complainf(e.key, "unknown key %q: the keys here are %s", clip(e.name), strings.Join(names(keys), ", "))
		} else {
			f.complainf(e.key, "unknown key %q, did you mean %q?", clip(e.name), meant)
		}
	}
	for _, k := range keys {
		if missing && k.missing != "" && !given[k.name] {
			f.complainf(n, "%s is required: %s", join(path, k.name), k.missing)
		}
	}
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

func names[T any](keys []key[T]) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.name
	}
	return all
}

// items are those of a list; a single value is a list of one.
func (f *file) items(path string, n *yaml.Node) []*yaml.Node {
	n = f.resolve(n)
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode && n.ShortTag() != "!!null":
		return []*yaml.Node{n}
	case len(n.Content) == 0:
		f.complainf(n, "%s is empty: give it at least one value", path)
	}
	return n.Content
}

// text is a value that YAML reads as text; bare is for those that may look like
// a number or a truth as well.
func (f *file) text(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	n, ok := f.expect(path, n, yaml.ScalarNode, "text")
	if !ok {
		return "", n, false
	}
	if n.ShortTag() != "!!str" {
		f.complainf(n, "%s: expected text, found %s: put it in quotes", path, describe(n))
		return "", n, false
	}
	return n.Value, n, f.noNUL(path, n)
}

func (f *file) bare(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	n, ok := f.expect(path, n, yaml.ScalarNode, "text")
	if !ok {
		return "", n, false
	}
	return n.Value, n, f.noNUL(path, n)
}

// noNUL holds of all that becomes an argument or a variable of a process.
func (f *file) noNUL(path string, n *yaml.Node) bool {
	if strings.ContainsRune(n.Value, 0) {
		f.complainf(n, "%s: text cannot hold the character 0", path)
		return false
	}
	return true
}

// expect is the node, its alias resolved, if it is of the kind.
func (f *file) expect(path string, n *yaml.Node, kind yaml.Kind, what string) (*yaml.Node, bool) {
	n = f.resolve(n)
	path = cmp.Or(path, "the file")
	switch {
	case n == nil:
		return nil, false
	case n.ShortTag() == "!!null":
		f.complainf(n, "%s: expected %s, found nothing", path, what)
		return nil, false
	case n.Kind != kind:
		f.complainf(n, "%s: expected %s, found %s", path, what, describe(n))
		return nil, false
	}
	return n, true
}

// resolve is what an alias stands for, or the node itself; nil after a problem.
func (f *file) resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		within := f.expanded <= maxExpanded
		f.expanded += f.size(n.Alias)
		if f.expanded > maxExpanded {
			if within {
				f.complainf(n, "aliases stand for more than 1 MiB in all")
			}
			return nil
		}
		n = n.Alias
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge", "!!seq", "!!map":
	default:
		f.complainf(n, "tags such as %s are not read", clip(n.Tag))
		return nil
	}
	return n
}

// size counts what an alias stands for; aliases within count when they are
// resolved themselves.
func (f *file) size(n *yaml.Node) int {
	if known, ok := f.sizes[n]; ok {
		return known
	}
	size := 1 + len(n.Value)
	for _, child := range n.Content {
		size += f.size(child)
	}
	f.sizes[n] = size
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
