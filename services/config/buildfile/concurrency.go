package buildfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const maxGroup = 200 // bytes, as it is written

// groupVariables are those of a build that the name of a group can hold: they are the
// same for all of its jobs, and known before it begins.
var groupVariables = []string{
	"FORGE_ACTION", "FORGE_BASE_REF", "FORGE_DEFAULT_BRANCH", "FORGE_PULL_REQUEST", "FORGE_REF", "FORGE_SCHEDULE", "FORGE_SHA", "FORGE_TAG",
}

// queueing reads what runs one at a time.
type queueing struct{ *file }

// concurrency is the name of a group, or says more.
func (f queueing) concurrency(at string, n *yaml.Node) *configv1.Concurrency {
	c := &configv1.Concurrency{}
	n = f.resolve(n)
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		c.Group = f.group(at, n)
	default:
		readMapping(f.file, at, n, c, concurrencyKeys())
	}
	return c
}

func concurrencyKeys() []key[*configv1.Concurrency] {
	return []key[*configv1.Concurrency]{
		{name: "group", missing: "what those have in common that run one at a time, such as ${FORGE_REF}", read: func(f *file, path string, n *yaml.Node, c *configv1.Concurrency) {
			c.Group = queueing{f}.group(path, n)
		}},
		{name: "cancel", read: func(f *file, path string, n *yaml.Node, c *configv1.Concurrency) {
			c.Cancel = f.truth(path, n)
		}},
	}
}

// group is the name of one. What ${…} remains is a variable, and nothing else has a $, so
// that whoever fills it in takes no value for more than it is.
func (f queueing) group(at string, n *yaml.Node) string {
	text, n, ok := f.filledText(at, n, inGroup)
	if !ok {
		return ""
	}
	if f.names(at, n, text, "the name of a group", "${FORGE_REF}") && len(text) > maxGroup {
		f.complainf(n, "%s has more than %d bytes", at, maxGroup)
	}
	return text
}

// inGroup is what ${…} stands for in the name of a group, which is itself until there is
// a build.
func inGroup(name string) (value, problem string) {
	if !slices.Contains(groupVariables, name) {
		return "", "${" + clip(name) + "} is no variable for a group: there are " + strings.Join(groupVariables, ", ")
	}
	return hole + name + "}", ""
}
