package buildfile

import (
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// maxPatience is how long a service may take until it is ready.
const maxPatience = 10 * time.Minute

func (f *file) services(path string, n *yaml.Node) map[string]*configv1.Sidecar {
	entries, _ := f.entries(path, n)
	services := make(map[string]*configv1.Sidecar, len(entries))
	for _, e := range entries {
		if !hostPattern.MatchString(e.name) {
			f.complainf(e.key, "%s: %q cannot be the name of a service: it is reached by it, so small letters, digits and -", path, clip(e.name))
		}
		service := &configv1.Sidecar{}
		readMapping(f, e.path, e.value, service, serviceKeys())
		services[e.name] = service
	}
	return services
}

// serviceEnvironment takes any name that an environment can hold: programs read
// such as discovery.type, which no shell could set.
func (f *file) serviceEnvironment(path string, n *yaml.Node) map[string]string {
	entries, _ := f.entries(path, n)
	environment := make(map[string]string, len(entries))
	for _, e := range entries {
		if e.name == "" || strings.ContainsAny(e.name, "=\x00") {
			f.complainf(e.key, "%s: %q cannot be the name of a variable: it must not be empty nor hold = or the character 0", path, clip(e.name))
		}
		environment[e.name], _, _ = f.bare(e.path, e.value)
	}
	return environment
}

// arguments are a list, or text that blanks divide into one. Where a shell would
// see more in the text than that, people disagree about what it means.
func (f *file) arguments(path string, n *yaml.Node) []string {
	n = f.resolve(n)
	if n != nil && n.Kind == yaml.ScalarNode {
		return f.divided(path, n)
	}
	if n == nil {
		return nil
	}
	var arguments []string
	for _, item := range f.items(path, n) {
		argument, _, _ := f.bare(path, item)
		arguments = append(arguments, argument)
	}
	return arguments
}

// ready is a port, or says more.
func (f *file) ready(path string, n *yaml.Node) *configv1.Ready {
	ready := &configv1.Ready{}
	n = f.resolve(n)
	if n == nil {
		return ready
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		ready.Port, _ = f.port(path, n)
		return ready
	}
	before := len(f.problems)
	readMapping(f, path, n, ready, readyKeys())
	if len(f.problems) == before && ready.GetRun() != "" && ready.GetPort() != 0 {
		f.complainf(n, "%s has both run and port: give it one of them", path)
	}
	return ready
}

func (f *file) patience(path string, n *yaml.Node) *durationpb.Duration {
	before := len(f.problems)
	within := f.duration(path, n)
	if len(f.problems) == before && within.AsDuration() > maxPatience {
		f.complainf(f.resolve(n), "%s: a service may take 10m at most", path)
	}
	return within
}

var holes = regexp.MustCompile(`\$?\$\{[^}]*\}?`)

// divided are the parts of a text. A value of a matrix is filled in after that, so
// that it stays in one part.
func (r *reader) divided(path string, n *yaml.Node) []string {
	if _, _, ok := r.text(path, n); !ok {
		return nil
	}
	text := n.Value
	if r.cell != nil {
		text = holes.ReplaceAllString(text, "")
	}
	switch {
	case strings.TrimSpace(n.Value) == "":
		r.complainf(n, "%s is empty: give it at least one value", path)
	case strings.ContainsAny(text, "'\"\\`$"):
		r.complainf(n, "%s: text is divided at blanks alone, and no shell reads it: write a list, such as [sh, -c, \"echo $HOME\"]", path)
	}
	parts := strings.Fields(n.Value)
	if r.cell == nil {
		return parts
	}
	for i, part := range parts {
		parts[i], _ = r.filledIn(path, n, part)
	}
	return parts
}
