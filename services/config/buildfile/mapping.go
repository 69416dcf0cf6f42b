package buildfile

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// extension begins the names of keys at the top of a file that nothing reads: a
// place for what anchors name.
const extension = "x-"

type entry struct {
	name, path string
	key, value *yaml.Node
}

// entries are those of a mapping and of what it merges, each name once. Keys that
// stand in the mapping itself win over merged ones, those merged first over later
// ones.
func (r *reader) entries(path string, n *yaml.Node) ([]entry, bool) {
	n, ok := r.expect(path, n, yaml.MappingNode, "keys with values")
	if !ok {
		return nil, false
	}
	m := &merging{reader: r, path: path, seen: map[string]bool{}, state: map[*yaml.Node]state{}}
	m.mapping(n)
	return m.entries, true
}

// merging collects entries. Each mapping is read once, however often it is merged:
// the second time it could add nothing.
type merging struct {
	reader  *reader
	path    string
	entries []entry
	seen    map[string]bool // names
	state   map[*yaml.Node]state
}

// state is how far a mapping has been read.
type state int

const (
	unread state = iota
	begun
	done
)

func (m *merging) mapping(n *yaml.Node) {
	f := m.reader
	m.state[n] = begun
	defer func() { m.state[n] = done }()
	lines := map[string]int{}
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := f.resolve(n.Content[i]), n.Content[i+1]
		switch {
		case k == nil:
			continue
		case k.Kind != yaml.ScalarNode:
			f.complainf(k, "a key must be text, not %s", describe(k))
			continue
		case lines[k.Value] > 0:
			f.complainf(k, "duplicate key %q, first on line %d", clip(k.Value), lines[k.Value])
			continue
		}
		lines[k.Value] = k.Line
		switch {
		case k.ShortTag() == "!!merge":
			merged = value
		case m.path == "" && strings.HasPrefix(k.Value, extension):
		case !m.seen[k.Value]:
			m.seen[k.Value] = true
			m.entries = append(m.entries, entry{name: k.Value, path: join(m.path, clip(k.Value)), key: k, value: value})
		}
	}
	if merged != nil {
		m.merge(merged)
	}
}

// merge takes a mapping or a list of them.
func (m *merging) merge(n *yaml.Node) {
	const what = "keys with values, or a list of such, mostly as aliases"
	f := m.reader
	path := join(m.path, "<<")
	n = f.resolve(n)
	if n == nil {
		return
	}
	all := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		all = n.Content
	}
	for _, one := range all {
		if len(f.problems) >= enough {
			return
		}
		mapping, ok := f.expect(path, one, yaml.MappingNode, what)
		switch {
		case !ok:
		case m.state[mapping] == unread:
			m.mapping(mapping)
		case m.state[mapping] == begun:
			f.complainf(one, "%s: a mapping cannot be merged into itself", path)
		}
	}
}
