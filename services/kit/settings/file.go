package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// entry is one setting of the file: a scalar, a list, or a map of scalars.
type entry struct {
	line   int
	scalar string
	list   []string
	pairs  []string // "key=value"
}

// text is the entry as it would stand in the environment.
func (e entry) text(flag *kong.Flag) string {
	switch {
	case e.list != nil:
		return kong.JoinEscaped(e.list, flag.Tag.Sep)
	case e.pairs != nil:
		return kong.JoinEscaped(e.pairs, flag.Tag.MapSep)
	default:
		return e.scalar
	}
}

func parseFile(text []byte) (map[string]entry, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	entries := map[string]entry{}
	for _, top := range doc.Content { // one at most
		if top.Tag == "!!null" {
			continue
		}
		if top.Kind != yaml.MappingNode {
			return nil, errors.New("expected lines of key: value")
		}
		for pair := range slices.Chunk(top.Content, 2) {
			key := pair[0]
			if first, twice := entries[key.Value]; twice {
				return nil, fmt.Errorf("%s, line %d: stands already on line %d", key.Value, key.Line, first.line)
			}
			e, err := newEntry(pair[1])
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", key.Value, key.Line, err)
			}
			e.line = key.Line
			entries[key.Value] = e
		}
	}
	return entries, nil
}

func newEntry(node *yaml.Node) (e entry, err error) {
	switch node.Kind {
	case yaml.SequenceNode:
		e.list = []string{}
		for _, item := range node.Content {
			text, err := scalar(item)
			if err != nil {
				return entry{}, err
			}
			e.list = append(e.list, text)
		}
	case yaml.MappingNode:
		e.pairs = []string{}
		for pair := range slices.Chunk(node.Content, 2) {
			text, err := scalar(pair[1])
			if err != nil {
				return entry{}, err
			}
			e.pairs = append(e.pairs, pair[0].Value+"="+text)
		}
	default:
		e.scalar, err = scalar(node)
	}
	return e, err
}

func scalar(node *yaml.Node) (string, error) {
	switch {
	case node.Kind != yaml.ScalarNode:
		return "", errors.New("expected a single value, a list of values, or a map of values")
	case node.Tag == "!!null":
		return "", nil
	default:
		return node.Value, nil
	}
}

func sortedByLine(file map[string]entry) []string {
	return slices.SortedFunc(maps.Keys(file), func(a, b string) int { return file[a].line - file[b].line })
}
