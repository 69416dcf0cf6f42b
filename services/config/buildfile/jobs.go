package buildfile

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// pipeline is one of the file's, until all that its jobs take from the file is
// known.
type pipeline struct {
	into     *configv1.Pipeline
	path     string
	n        *yaml.Node
	drafts   []*draft // none: it has commands
	events   []configv1.Condition_Event
	branches []string // that pushes are to; none: any
}

// draft is a job before it is divided into the cells of its matrix.
type draft struct {
	name, path string
	key        *yaml.Node
	given      given
	job        *configv1.Job // what all cells have alike
	own        fields
	needs      []need
	condition  *condition
	matrix     *yaml.Node
	cells      []*cell // one without values where there is no matrix; none after a problem in it
}

// need is a job that another one needs.
type need struct {
	name string
	n    *yaml.Node
}

var jobPattern = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,58}[A-Za-z0-9._-])?$`)

// commandsOf reads a pipeline that has no jobs.
func (f *file) commandsOf(path string, n *yaml.Node, into *configv1.Pipeline) {
	into.Commands = f.commands(path, n)
	f.pipelines = append(f.pipelines, &pipeline{into: into, path: path, n: n})
}

// jobs reads the jobs of a pipeline that sees some events.
func (f *file) jobs(path string, n *yaml.Node, into *configv1.Pipeline, events []configv1.Condition_Event) {
	entries, ok := f.entries(path, n)
	if !ok {
		return
	}
	n = f.resolve(n)
	if len(entries) == 0 && n != nil && len(n.Content) == 0 {
		f.complainf(n, "%s is empty: give it at least one job", path)
	}
	p := &pipeline{into: into, path: path, n: n, events: events}
	f.pipelines = append(f.pipelines, p)
	count := 0
	for _, e := range entries {
		if len(f.problems) >= enough {
			return
		}
		d := f.draft(path, e)
		if count += max(len(d.cells), 1); count > maxJobs {
			f.complainf(e.key, "%s has more than %d jobs and cells", path, maxJobs)
			p.drafts = nil
			return
		}
		p.drafts = append(p.drafts, d)
	}
	p.checkNeeds(f)
}

func (f *file) draft(path string, e entry) *draft {
	if !jobPattern.MatchString(e.name) {
		f.complainf(e.key, "%s: %q cannot be the name of a job: letters, digits, blanks, and . _ -, a letter or digit first, 60 at most", path, clip(e.name))
	}
	d := &draft{name: e.name, path: e.path, key: e.key, job: &configv1.Job{Name: e.name}, cells: []*cell{{}}}
	d.given = readMapping(f, e.path, e.value, d, jobKeys())
	for _, one := range d.needs {
		d.job.Needs = append(d.job.Needs, one.name)
	}
	if d.condition != nil {
		d.job.Condition = d.condition.Condition
	}
	d.addImageOutputs()
	if at := d.given["outputs"]; at != nil && d.matrix != nil {
		f.complainf(at, "%s.outputs: the cells of a matrix would each say something else: move the command to a job without one", e.path)
	}
	d.entitle(f)
	return d
}

func (f *file) needs(path string, n *yaml.Node) []need {
	var needs []need
	items := f.items(path, n)
	if len(items) > maxJobs {
		f.complainf(f.place(n), "%s names more than %d jobs", path, maxJobs)
		return nil
	}
	for _, item := range items {
		name, item, ok := f.bare(path, item)
		switch {
		case !ok:
		case slices.ContainsFunc(needs, func(other need) bool { return other.name == name }):
			f.complainf(item, "%s: %q is named twice", path, clip(name))
		default:
			needs = append(needs, need{name, item})
		}
	}
	return needs
}

// outputs are variables that commands set.
func (f *file) outputs(path string, n *yaml.Node) []string {
	names := f.secrets(path, n)
	for _, item := range f.items(path, n) {
		if item = f.place(item); strings.HasPrefix(item.Value, "FORGE") || slices.Contains(setByOthers, item.Value) {
			f.complainf(item, "%s: %s is set by Forge or the shell, and no command hands it on: give it another name", path, clip(item.Value))
		}
	}
	return names
}

// setByOthers are variables that no command can hand on, besides those that begin
// with FORGE.
var setByOthers = []string{"CI", "TRACEPARENT", "TRACESTATE", "BAGGAGE", "PWD", "OLDPWD", "SHLVL", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"}

// staged is what staging, and stop of a preview, is as a mapping: one command, or jobs.
type staged struct {
	pipeline *configv1.Pipeline
	command  *configv1.Command
	events   []configv1.Condition_Event
}

func (f *file) staging(path string, n *yaml.Node, into *configv1.Pipeline, events []configv1.Condition_Event) {
	mapping := n
	if n.Kind == yaml.AliasNode {
		mapping = n.Alias
	}
	if mapping.Kind != yaml.MappingNode || forgotQuotes(mapping) {
		f.commandsOf(path, n, into)
		return
	}
	s := &staged{pipeline: into, command: &configv1.Command{}, events: events}
	if all := readMapping(f, path, n, s, stagingKeys()); all["run"] == nil {
		return
	}
	f.steps++
	f.firstWhen(path, mapping, s.command)
	into.Commands = []*configv1.Command{named(s.command)}
	f.pipelines = append(f.pipelines, &pipeline{into: into, path: path, n: n})
}
