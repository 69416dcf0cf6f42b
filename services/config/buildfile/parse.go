// Package buildfile reads .forge.yml, strictly: what it does not know, or what
// cannot be, is a problem with a line and a column, in words for the person who
// wrote it. It takes files from strangers, so what one file may cost is bounded.
package buildfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// The file is at the top of the repository, under one of these names.
const (
	Name      = ".forge.yml"
	OtherName = ".forge.yaml"
	// Both says what is wrong with a commit that holds a file under each.
	Both = "the commit holds " + Name + " and " + OtherName + ": keep one of them"
)

// What a file may be at most. maxMarks bounds the time the YAML parser takes,
// which grows with the values it finds, of which each needs a mark.
const (
	MaxSize     = 256 << 10 // bytes
	Oversize    = "the file is larger than 256 KiB: move long scripts into files of the repository and call them"
	maxMarks    = 10_000
	marks       = ",[]{}:-?!&*"
	maxDepth    = 100
	maxExpanded = 1 << 20 // bytes that aliases stand for
	maxSteps    = 500
	maxProblems = 20
	enough      = 500 // problems after which no more are looked for
)

// Problem is one error in a file.
type Problem = configv1.ConfigInvalid_Problem

func problemAt(line, column int, message string) *Problem {
	return &Problem{Line: int32(line), Column: int32(column), Message: message} //nolint:gosec // bounded by MaxSize
}

// Parse reads a file. There are either no problems, or no config and the first
// 20 problems in the order of the file.
func Parse(text []byte) (*configv1.BuildConfig, []*Problem) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	config, problems := read(text)
	for _, p := range problems {
		p.Snippet = snippet(text, p)
	}
	return config, problems
}

func read(text []byte) (*configv1.BuildConfig, []*Problem) {
	root, problem := load(text)
	if problem != nil {
		return nil, []*Problem{problem}
	}
	f := &file{images: map[*configv1.ImageStep]*yaml.Node{}, reader: &reader{
		sizes: map[*yaml.Node]int{}, blamed: map[*yaml.Node]bool{}, holes: map[*yaml.Node]bool{}, weights: map[*yaml.Node]int{},
	}}
	config := &configv1.BuildConfig{}
	f.finish(config, readMapping(f, "", root, config, configKeys()))
	if len(f.problems) == 0 {
		return config, nil
	}
	order := func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.GetLine(), b.GetLine()), cmp.Compare(a.GetColumn(), b.GetColumn()))
	}
	slices.SortStableFunc(f.problems, order)
	// What an alias stands for is read in each place.
	f.problems = slices.CompactFunc(f.problems, func(a, b *Problem) bool { return order(a, b) == 0 && a.GetMessage() == b.GetMessage() })
	return nil, f.problems[:min(len(f.problems), maxProblems)]
}

// load is the YAML of the file, an empty mapping if there is none.
func load(text []byte) (*yaml.Node, *Problem) {
	if len(text) > MaxSize {
		return nil, problemAt(1, 1, Oversize)
	}
	if problem := unreadable(text); problem != nil {
		return nil, problem
	}
	if n := countMarks(text); n > maxMarks {
		return nil, problemAt(1, 1, fmt.Sprintf(
			"the file has more values than a build can need (%d of the marks %s, at most %d): move long scripts into files of the repository and call them",
			n, marks, maxMarks))
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		return nil, problemAt(1, 1, err.Error())
	}
	var first, second yaml.Node
	empty := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		return empty, nil
	} else if err != nil {
		return nil, syntax(err, text)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, problemAt(second.Line, 1, "a second YAML document begins here: the file can hold one")
	case !errors.Is(err, io.EOF):
		return nil, syntax(err, text)
	}
	if root := first.Content[0]; root.ShortTag() != "!!null" {
		return root, nil
	}
	return empty, nil
}

// unreadable is the first byte that is no text.
func unreadable(text []byte) *Problem {
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			return problemAt(line, column, fmt.Sprintf("byte 0x%02x is not UTF-8: save the file as UTF-8", text[0]))
		case r == '\n':
			line, column = line+1, 0
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return problemAt(line, column, fmt.Sprintf("control character 0x%02x: write it as \"\\x%02x\", in quotes", r, r))
		}
		column++
		text = text[size:]
	}
	return nil
}

func countMarks(text []byte) int {
	n := 0
	for _, mark := range []byte(marks) {
		n += bytes.Count(text, []byte{mark})
	}
	return n
}

// hints say in a user's words what the YAML parser found.
func hints() map[string]string {
	return map[string]string{
		"mapping values are not allowed in this context": `a colon and a space make a key of the text before them, and no key can be here: put text with a colon in quotes, or mend the indentation`,
		"could not find expected ':'":                    "expected a key with a colon, or text that is indented",
		"did not find expected key":                      "expected a key, indented like the ones before",
		"did not find expected '-' indicator":            "expected another item with a dash, or a key that is not within the list",
		"found incompatible YAML document":               "a %YAML line is not read: remove it",
		"found unexpected end of stream":                 "the file ends within quotes",
	}
}

// syntax is why text is not YAML.
func syntax(err error, text []byte) *Problem {
	found, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return problemAt(1, 1, "not YAML: "+err.Error())
	}
	p := problemAt(max(found.Mark.Line, 1), max(found.Mark.Column, 1), hints()[found.Message])
	if p.GetMessage() != "" {
		return p
	}
	p.Message = "not YAML: " + found.Message
	if char, ok := at(text, p); ok && found.Message == "found character that cannot start any token" {
		p.Message = fmt.Sprintf("text cannot begin with %c: put it in quotes", char)
		if char == '\t' {
			p.Message = "a tab cannot indent: use spaces"
		}
	} else if found.ContextMsg != "" && found.ContextMark.Line > 0 && found.ContextMark != found.Mark {
		p.Message += fmt.Sprintf(" %s that begins at line %d, column %d", found.ContextMsg, found.ContextMark.Line, found.ContextMark.Column)
	}
	return p
}

// at is the character at a problem's place.
func at(text []byte, p *Problem) (rune, bool) {
	line := []rune(string(lineOf(text, p)))
	if int(p.GetColumn()) > len(line) {
		return 0, false
	}
	return line[p.GetColumn()-1], true
}
