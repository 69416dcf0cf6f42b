package buildfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// In a file with jobs, ${name} stands for what a cell of the matrix has under the
// name, and $${ for the two characters ${. Caches and artifacts know ${…} in every
// file.
const hole = "${"

// fields are the values that ${…} is filled in. They are read once the whole file
// is known, as often as they differ.
type fields struct {
	image            field[string]
	platform         field[string]
	environment      field[map[string]string]
	services         field[map[string]*configv1.Sidecar]
	timeout          field[*durationpb.Duration]
	workingDirectory field[string]
	caches           field[[]*configv1.Cache]
	artifacts        field[[]*configv1.Artifact]
	reports          field[*configv1.Reports]
}

// field is one of them; its zero value is that of a key that is left out.
type field[T any] struct {
	path  string
	n     *yaml.Node
	same  *T // what every cell gets; nil until it is read, or where they differ
	taken bool
}

func (v *field[T]) give(path string, n *yaml.Node) { v.path, v.n = path, n }

// unused complains of a ${…} that no job takes.
func (v *field[T]) unused(f *file) {
	if v.n != nil && !v.taken {
		f.complainf(f.place(v.n), "%s: each job has its own, so that nothing fills in this one: leave it out", v.path)
	}
}

// in reads a field for a cell; for none, where the file has no jobs and ${ is text
// like any other.
func (v *field[T]) in(f *file, c *cell, read func(path string, n *yaml.Node) T) (value T) {
	switch {
	case v.n == nil:
		return value
	case !v.taken:
		v.taken = true
		return v.in(f, c, read)
	case v.same != nil:
		return *v.same
	case c != nil && f.hasHole(v.n):
		if !f.affords(&f.filled, f.weight(v.n), v.n) {
			return value
		}
		f.cell = c
		defer func() { f.cell = nil }()
		return read(v.path, v.n)
	}
	value = read(v.path, v.n)
	v.same = &value
	return value
}

// Both bound what a file grows to when its jobs are divided into cells.
const (
	maxGrown = 1 << 20 // bytes
	perNode  = 32      // bytes that reading a value once more counts for
	perHole  = 8       // likewise a ${…}
)

// weight is what it costs to read a value once more.
func (r *reader) weight(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	known, seen := r.weights[n]
	if seen {
		return known
	}
	r.weights[n] = 0 // where it holds itself
	weight := perNode + len(n.Value)
	for _, child := range n.Content {
		weight = min(weight+r.weight(child), maxGrown+1)
	}
	r.weights[n] = weight
	return weight
}

// affords adds to one of the bounded sums. Over the bound it is false, and the
// first time a problem.
func (r *reader) affords(sum *int, more int, n *yaml.Node) bool {
	within := *sum <= maxGrown
	*sum += more
	if *sum <= maxGrown {
		return true
	}
	if within {
		r.complainf(n, "the jobs, each cell with all that it takes from the file, have more than 1 MiB: move long scripts and values into files of the repository")
	}
	return false
}

// hasHole reports whether ${ is anywhere in a value.
func (r *reader) hasHole(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	known, seen := r.holes[n]
	if seen {
		return known
	}
	r.holes[n] = false // where it holds itself
	has := n.Kind == yaml.ScalarNode && strings.Contains(n.Value, hole) || slices.ContainsFunc(n.Content, r.hasHole)
	r.holes[n] = has
	return has
}

// fill is the text of a value, for a cell with its values in it. These are not
// looked into again.
func (r *reader) fill(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	if !r.noNUL(path, n) {
		return n.Value, n, false
	}
	if r.cell == nil || !strings.Contains(n.Value, hole) {
		return n.Value, n, true
	}
	text, ok := r.filledIn(path, n, n.Value)
	return text, n, ok
}

// standing is what ${name} stands for, or else why it stands for nothing.
type standing func(name string) (value, problem string)

// ofCell is what the cell has under a name.
func (r *reader) ofCell(name string) (value, problem string) {
	value, known := r.cell.value(name)
	if !known {
		return "", r.unknownHole(name)
	}
	return value, ""
}

// filledText is text in which ${…} means something in files without jobs, too, and
// for which a ${ of its own makes no sense.
func (r *reader) filledText(path string, n *yaml.Node, stands standing) (string, *yaml.Node, bool) {
	n, ok := r.plain(path, n)
	if !ok || !r.noNUL(path, n) {
		return "", n, false
	}
	text, ok := r.filledWith(path, n, n.Value, stands, "")
	return text, n, ok
}

func (r *reader) filledIn(path string, n *yaml.Node, text string) (string, bool) {
	stands := func(name string) (value, problem string) {
		if value, problem = r.ofCell(name); problem != "" {
			problem += "; write $${" + clip(name) + "} for the text itself"
		}
		return value, problem
	}
	return r.filledWith(path, n, text, stands, ": write $${ for the text itself")
}

// filledWith fills in what each ${…} stands for; open is what to do about one that
// does not end.
func (r *reader) filledWith(path string, n *yaml.Node, text string, stands standing, open string) (string, bool) {
	var filled strings.Builder
	for {
		before, after, found := strings.Cut(text, hole)
		if !found {
			filled.WriteString(text)
			return filled.String(), true
		}
		if literal, ok := strings.CutSuffix(before, "$"); ok {
			filled.WriteString(literal + hole)
			text = after
			continue
		}
		name, rest, ended := strings.Cut(after, "}")
		if !ended {
			r.complainf(n, "%s: a ${ that no } ends%s", path, open)
			return "", false
		}
		value, problem := stands(name)
		switch {
		case problem != "":
			r.complainf(n, "%s: %s", path, problem)
			return "", false
		case !r.affords(&r.filled, perHole+len(value), n):
			return "", false
		}
		filled.WriteString(before + value)
		text = rest
	}
}

// unknownHole says why a cell has no value of a name.
func (r *reader) unknownHole(name string) string {
	known := r.cell.names()
	what := "${" + clip(name) + "} is not known: "
	switch meant := r.guess(name, known); {
	case len(known) == 0:
		what += "no matrix gives it a value"
	case meant != "":
		what += "did you mean ${" + clip(meant) + "}?"
	default:
		what += "the matrix gives " + listed(known)
	}
	return what
}
