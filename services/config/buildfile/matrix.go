package buildfile

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// Keys in a matrix that are no names of values.
const (
	includeKey = "include"
	excludeKey = "exclude"
	mayFailKey = "may_fail" // in an entry of include
)

const (
	maxJobs     = 100  // jobs and cells of one pipeline
	maxCombined = 500  // cells of one matrix before exclude takes some out, and entries of these lists
	maxNames    = 20   // keys of one matrix
	maxValue    = 1000 // characters of one value
)

var matrixPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,59}$`)

// cell is one job of those a matrix stands for.
type cell struct {
	values  []*configv1.MatrixValue
	mayFail *bool // as include says
	title   string
	built   []string // what images of jobs that it needs are called
}

// value is what a cell has under a name; no cell has anything.
func (c *cell) value(name string) (string, bool) {
	if c == nil {
		return "", false
	}
	for _, v := range c.values {
		if v.GetName() == name {
			return v.GetValue(), true
		}
	}
	return "", false
}

func (c *cell) names() []string {
	if c == nil {
		return nil
	}
	all := make([]string, len(c.values))
	for i, v := range c.values {
		all[i] = v.GetName()
	}
	return all
}

// axis is a key of a matrix with its values.
type axis struct {
	name   string
	values []string
}

// matrix is one while it is read.
type matrix struct {
	*reader
	path    string
	axes    []axis
	cleaned map[string]string // names, by what they are to the commands
}

// readMatrix reads the cells of a matrix, in the order of its values, those that
// include adds last. There are none after a problem.
func readMatrix(f *file, path string, n *yaml.Node) []*cell {
	before := len(f.problems)
	entries, ok := f.entries(path, n)
	if !ok {
		return nil
	}
	n = f.place(n)
	m := &matrix{reader: f.reader, path: path, cleaned: map[string]string{}}
	var include, exclude entry
	for _, e := range entries {
		switch e.name {
		case includeKey:
			include = e
		case excludeKey:
			exclude = e
		default:
			m.axis(e)
		}
	}
	count := 1
	for _, a := range m.axes {
		count *= max(len(a.values), 1)
		if count > maxCombined {
			f.complainf(n, "%s has more than %d cells: a pipeline has %d jobs and cells at most", path, maxCombined, maxJobs)
			return nil
		}
	}
	if len(f.problems) > before {
		return nil
	}
	cells := m.excluded(exclude, combined(m.axes))
	if len(cells) <= maxJobs {
		cells = m.included(include, cells)
	}
	switch {
	case len(f.problems) > before:
		return nil
	case len(cells) == 0 && len(entries) > 0 && exclude.key != nil:
		f.complainf(exclude.key, "%s leaves no cell of the matrix", exclude.path)
	case len(cells) == 0:
		f.complainf(n, "%s is empty: give it a key with values, or include", path)
	case len(cells) > maxJobs:
		f.complainf(n, "%s has %d cells: a pipeline has %d jobs and cells at most", path, len(cells), maxJobs)
		return nil
	}
	return cells
}

// axis reads a name with its values.
func (m *matrix) axis(e entry) {
	m.name(e)
	a := axis{name: e.name}
	items := m.items(e.path, e.value)
	if len(items) > maxCombined {
		m.complainf(m.place(e.value), "%s has more than %d values: a pipeline has %d jobs and cells at most", e.path, maxCombined, maxJobs)
		return
	}
	for _, item := range items {
		value, item, ok := m.value(e.path, item)
		if ok && slices.Contains(a.values, value) {
			m.complainf(item, "%s: %q is named twice", e.path, clip(value))
		}
		a.values = append(a.values, value)
	}
	m.axes = append(m.axes, a)
}

// name checks a name of values. The commands see it as MATRIX_…, so no two
// may come to the same there.
func (m *matrix) name(e entry) {
	if !matrixPattern.MatchString(e.name) {
		m.complainf(e.key, "%s: %q cannot be a key of a matrix: a letter, then letters, digits, _ and -, 60 at most", m.path, clip(e.name))
		return
	}
	variable := matrixVariable(e.name)
	if first := m.cleaned[variable]; first != "" && first != e.name {
		m.complainf(e.key, "%s: %s and %s are both %s to the commands: give one another name", m.path, first, e.name, variable)
	}
	m.cleaned[variable] = e.name
	if len(m.cleaned) == maxNames+1 {
		m.complainf(e.key, "%s has more than %d keys", m.path, maxNames)
	}
}

func matrixVariable(name string) string { return "MATRIX_" + clean(name) }

// clean is a name as it is in that of a variable.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// value is one as it is written: 1.20 stays 1.20.
func (m *matrix) value(path string, n *yaml.Node) (string, *yaml.Node, bool) {
	value, n, ok := m.bare(path, n)
	switch {
	case !ok:
		return "", n, false
	case strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }):
		m.complainf(n, "%s: expected one line of text that can be seen", path)
		return "", n, false
	case len([]rune(value)) > maxValue:
		m.complainf(n, "%s: a value is longer than %d characters", path, maxValue)
		return "", n, false
	}
	return value, n, true
}

// combined are the cells of axes, the first of which changes last.
func combined(axes []axis) []*cell {
	if len(axes) == 0 {
		return nil
	}
	cells := []*cell{{}}
	for _, a := range axes {
		next := make([]*cell, 0, len(cells)*len(a.values))
		for _, c := range cells {
			for _, value := range a.values {
				next = append(next, &cell{values: append(slices.Clip(c.values), &configv1.MatrixValue{Name: a.name, Value: value})})
			}
		}
		cells = next
	}
	return cells
}

// matches reports whether a cell has all of some values.
func (c *cell) matches(values []*configv1.MatrixValue) bool {
	return !slices.ContainsFunc(values, func(v *configv1.MatrixValue) bool {
		has, ok := c.value(v.GetName())
		return !ok || has != v.GetValue()
	})
}

// excluded takes out the cells that entries of exclude match.
func (m *matrix) excluded(e entry, cells []*cell) []*cell {
	if e.key == nil {
		return cells
	}
	for _, item := range m.listOf(e.path, e.value) {
		entries, _ := m.entries(e.path, item)
		var values []*configv1.MatrixValue
		for _, one := range entries {
			value, n, ok := m.value(one.path, one.value)
			at := slices.IndexFunc(m.axes, func(a axis) bool { return a.name == one.name })
			switch {
			case !ok:
			case at < 0:
				m.complainf(one.key, "%s: the matrix has no list %q%s", e.path, clip(one.name), m.didYouMean(one.name, axisNames(m.axes)))
			case !slices.Contains(m.axes[at].values, value):
				m.complainf(n, "%s: %q is no value of %s%s", one.path, clip(value), m.axes[at].name, m.didYouMean(value, m.axes[at].values))
			}
			values = append(values, &configv1.MatrixValue{Name: one.name, Value: value})
		}
		if len(values) == 0 {
			continue
		}
		cells = slices.DeleteFunc(cells, func(c *cell) bool { return c.matches(values) })
	}
	return cells
}

// included has each entry of include fill what it has besides into the cells that
// have its values of the axes, or else be a cell of its own.
func (m *matrix) included(e entry, cells []*cell) []*cell {
	if e.key == nil {
		return cells
	}
	ofAxes := cells
	for _, item := range m.listOf(e.path, e.value) {
		entries, _ := m.entries(e.path, item)
		added := &cell{}
		var own, more []*configv1.MatrixValue
		for _, one := range entries {
			if one.name == mayFailKey {
				mayFail := m.truth(one.path, one.value)
				added.mayFail = &mayFail
				continue
			}
			value, _, _ := m.value(one.path, one.value)
			v := &configv1.MatrixValue{Name: one.name, Value: value}
			if slices.ContainsFunc(m.axes, func(a axis) bool { return a.name == one.name }) {
				own = append(own, v)
				continue
			}
			m.name(entry{name: one.name, path: one.path, key: one.key})
			more = append(more, v)
		}
		found := false
		for _, c := range ofAxes {
			if c.matches(own) {
				found = true
				c.take(more, added.mayFail)
			}
		}
		if !found && len(own)+len(more) > 0 {
			slices.SortStableFunc(own, func(a, b *configv1.MatrixValue) int {
				return slices.Index(axisNames(m.axes), a.GetName()) - slices.Index(axisNames(m.axes), b.GetName())
			})
			added.values = slices.Concat(own, more)
			cells = append(cells, added)
		}
	}
	return cells
}

// take adds values, in place of such as an entry of include has added before.
func (c *cell) take(more []*configv1.MatrixValue, mayFail *bool) {
	for _, v := range more {
		if at := slices.IndexFunc(c.values, func(has *configv1.MatrixValue) bool { return has.GetName() == v.GetName() }); at >= 0 {
			c.values[at] = v
		} else {
			c.values = append(c.values, v)
		}
	}
	if mayFail != nil {
		c.mayFail = mayFail
	}
}

// listOf are the mappings of a list, which one alone is as well.
func (m *matrix) listOf(path string, n *yaml.Node) []*yaml.Node {
	items := m.items(path, n)
	if len(items) > maxCombined {
		m.complainf(m.place(n), "%s has more than %d entries", path, maxCombined)
		return nil
	}
	for _, item := range items {
		if resolved := m.resolve(item); resolved != nil && resolved.Kind == yaml.MappingNode && len(resolved.Content) == 0 {
			m.complainf(resolved, "%s: an entry is empty: give it keys of the matrix with a value each", path)
		}
	}
	return items
}

func axisNames(axes []axis) []string {
	all := make([]string, len(axes))
	for i, a := range axes {
		all[i] = a.name
	}
	return all
}
