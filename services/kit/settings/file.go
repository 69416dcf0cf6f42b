package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
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
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	entries := map[string]entry{}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(ast.MapNode)
		if !ok {
			return nil, errors.New("expected lines of key: value")
		}
		for it := mapping.MapRange(); it.Next(); {
			key := it.Key().GetToken()
			e, err := newEntry(it.Value())
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", key.Value, key.Position.Line, err)
			}
			e.line = key.Position.Line
			entries[key.Value] = e
		}
	}
	return entries, nil
}

func newEntry(node ast.Node) (e entry, err error) {
	switch node := node.(type) {
	case *ast.SequenceNode:
		e.list = []string{}
		for _, item := range node.Values {
			text, err := scalar(item)
			if err != nil {
				return entry{}, err
			}
			e.list = append(e.list, text)
		}
	case ast.MapNode:
		e.pairs = []string{}
		for it := node.MapRange(); it.Next(); {
			text, err := scalar(it.Value())
			if err != nil {
				return entry{}, err
			}
			e.pairs = append(e.pairs, it.Key().GetToken().Value+"="+text)
		}
	default:
		e.scalar, err = scalar(node)
	}
	return e, err
}

func scalar(node ast.Node) (string, error) {
	switch node := node.(type) {
	case *ast.NullNode:
		return "", nil
	case *ast.LiteralNode:
		return node.Value.Value, nil
	case ast.ScalarNode:
		return node.GetToken().Value, nil
	}
	return "", errors.New("expected a single value, a list of values, or a map of values")
}

func sortedByLine(file map[string]entry) []string {
	return slices.SortedFunc(maps.Keys(file), func(a, b string) int { return file[a].line - file[b].line })
}
