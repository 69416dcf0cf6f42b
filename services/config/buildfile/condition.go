package buildfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// Events that a pipeline sees. Deploys see one kind alone.
var (
	proposed = []configv1.Condition_Event{configv1.Condition_EVENT_PULL_REQUEST, configv1.Condition_EVENT_MERGE_GROUP}
	pushed   = []configv1.Condition_Event{configv1.Condition_EVENT_PUSH, configv1.Condition_EVENT_TAG}
	deployed = []configv1.Condition_Event{configv1.Condition_EVENT_DEPLOY}
	released = []configv1.Condition_Event{configv1.Condition_EVENT_RELEASE}
	timed    = []configv1.Condition_Event{configv1.Condition_EVENT_SCHEDULE}
	byHand   = []configv1.Condition_Event{configv1.Condition_EVENT_MANUAL}
	closed   = []configv1.Condition_Event{configv1.Condition_EVENT_CLOSED}
)

// word is a value that the file can name.
type word[T any] struct {
	name  string
	value T
}

func eventWords() []word[configv1.Condition_Event] {
	return []word[configv1.Condition_Event]{
		{"pull_request", configv1.Condition_EVENT_PULL_REQUEST},
		{"merge_group", configv1.Condition_EVENT_MERGE_GROUP},
		{"push", configv1.Condition_EVENT_PUSH},
		{"tag", configv1.Condition_EVENT_TAG},
		{"deploy", configv1.Condition_EVENT_DEPLOY},
		{"closed", configv1.Condition_EVENT_CLOSED},
		{"release", configv1.Condition_EVENT_RELEASE},
		{"schedule", configv1.Condition_EVENT_SCHEDULE},
		{"manual", configv1.Condition_EVENT_MANUAL},
	}
}

func onWords() []word[configv1.Condition_On] {
	return []word[configv1.Condition_On]{
		{"success", configv1.Condition_ON_SUCCESS},
		{"failure", configv1.Condition_ON_FAILURE},
		{"always", configv1.Condition_ON_ALWAYS},
	}
}

func whenWords() []word[configv1.Command_When] {
	return []word[configv1.Command_When]{
		{"success", configv1.Command_WHEN_SUCCESS},
		{"failure", configv1.Command_WHEN_FAILURE},
		{"always", configv1.Command_WHEN_ALWAYS},
	}
}

func shellWords() []word[configv1.Shell] {
	return []word[configv1.Shell]{{"sh", configv1.Shell_SHELL_SH}, {"bash", configv1.Shell_SHELL_BASH}}
}

// oneWord reads one of some words.
func oneWord[T any](f *file, path string, n *yaml.Node, known []word[T], what string) (value T, ok bool) {
	text, n, ok := f.text(path, n)
	if !ok {
		return value, false
	}
	all := make([]string, len(known))
	for i, w := range known {
		if w.name == text {
			return w.value, true
		}
		all[i] = w.name
	}
	f.complainf(n, "%s: %q is not %s: expected %s or %s", path, clip(text), what, strings.Join(all[:len(all)-1], ", "), all[len(all)-1])
	return value, false
}

// words reads a list of such, each once.
func words[T comparable](f *file, path string, n *yaml.Node, known []word[T], what string) []T {
	var values []T
	for _, item := range f.items(path, n) {
		if value, ok := oneWord(f, path, item, known, what); ok && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	return values
}

// condition is an `if`, with the places of its parts.
type condition struct {
	*configv1.Condition
	n, paths, branches, labels, events, on *yaml.Node
	path                                   string
}

func (f *file) condition(path string, n *yaml.Node) *condition {
	before := len(f.problems)
	c := &condition{Condition: &configv1.Condition{}, n: n, path: path}
	if all := readMapping(f, path, n, c, conditionKeys()); len(all) == 0 && len(f.problems) == before {
		f.complainf(f.resolve(n), "%s is empty: give it paths, branches, labels, events or on, or leave it out", path)
	}
	return c
}

func (r *reader) labels(path string, n *yaml.Node) []string {
	var labels []string
	for _, item := range r.items(path, n) {
		label, item, ok := r.text(path, item)
		if ok && strings.TrimSpace(label) == "" {
			r.complainf(item, "%s: a label is empty", path)
		}
		labels = append(labels, label)
	}
	return labels
}

// possible complains of a condition that never holds for what its pipeline sees.
func (d *draft) possible(f *file, p *pipeline) {
	c := d.condition
	if c == nil || c.events != nil && len(c.GetEvents()) == 0 { // a problem already
		return
	}
	seen := slices.Clone(p.events)
	if c.events != nil {
		seen = slices.DeleteFunc(seen, func(e configv1.Condition_Event) bool { return !slices.Contains(c.GetEvents(), e) })
	}
	without := func(unfit ...configv1.Condition_Event) []configv1.Condition_Event {
		return slices.DeleteFunc(slices.Clone(seen), func(e configv1.Condition_Event) bool { return slices.Contains(unfit, e) })
	}
	switch {
	case len(seen) == 0:
		f.complainf(f.place(c.events), "%s.events: the events here are %s alone, so this job would never run", c.path, eventNames(p.events))
	case c.labels != nil && !slices.Contains(seen, configv1.Condition_EVENT_PULL_REQUEST) && !slices.Contains(seen, configv1.Condition_EVENT_CLOSED):
		f.complainf(f.place(c.labels), "%s.labels: a pull request has labels, and here is none, so this job would never run", c.path)
	case c.branches != nil && len(without(configv1.Condition_EVENT_TAG, configv1.Condition_EVENT_RELEASE)) == 0:
		f.complainf(f.place(c.branches), "%s.branches: a tag is on no branch, so this job would never run", c.path)
	case c.branches != nil && outside(c.GetBranches(), p.branches):
		f.complainf(f.place(c.branches), "%s.branches: %s is for pushes to %s alone, so this job would never run", c.path, p.path, listed(p.branches))
	}
	if len(d.needs) == 0 && slices.Equal(c.GetOn(), []configv1.Condition_On{configv1.Condition_ON_FAILURE}) {
		f.complainf(f.place(c.on), "%s.on: the job needs no other that could fail, so it would never run: give it needs", c.path)
	}
}

func eventNames(events []configv1.Condition_Event) string {
	var all []string
	for _, w := range eventWords() {
		if slices.Contains(events, w.value) {
			all = append(all, w.name)
		}
	}
	return strings.Join(all, " and ")
}
