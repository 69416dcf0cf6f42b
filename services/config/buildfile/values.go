package buildfile

import (
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/dustin/go-humanize"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

var (
	// https://github.com/distribution/reference/blob/main/reference.go
	imagePattern = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?` + // registry
		`[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*` +
		`(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// RFC 1123: a service is reached by its name.
	hostPattern = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
)

const (
	maxName  = 100 // characters of a command's name
	maxCPUs  = 1024
	minBytes = 6 << 20 // Docker's least
	maxBytes = 1 << 50
)

func (f *file) image(path string, n *yaml.Node) string {
	if text, ofNeed := (imaging{f}).ofNeed(path, n); ofNeed {
		return text
	}
	text, n, ok := f.text(path, n)
	switch {
	case !ok:
		return ""
	case strings.TrimSpace(text) == "":
		f.complainf(n, "%s is empty: expected a container image, such as golang:1.26", path)
	case len(text) > 512 || !imagePattern.MatchString(text):
		f.complainf(n, "%s: %q is not the name of an image: expected one such as golang:1.26 or registry.example.com/team/tool:v2", path, clip(text))
	}
	return text
}

// platform is one that forgexec is built for.
func (f *file) platform(path string, n *yaml.Node) string {
	text, n, ok := f.text(path, n)
	if ok && !slices.Contains(platforms(), text) {
		f.complainf(n, "%s: %q is not a platform that builds can run on: expected %s", path, clip(text), strings.Join(platforms(), " or "))
	}
	return text
}

// platforms are in the words of images.
func platforms() []string { return []string{"linux/amd64", "linux/arm64"} }

// commands are one command or a list of them.
func (f *file) commands(path string, n *yaml.Node) []*configv1.Command {
	var commands []*configv1.Command
	for i, item := range f.items(path, n) {
		if f.steps++; f.steps > maxSteps {
			if f.steps == maxSteps+1 {
				f.complainf(item, "more than %d commands in one file: put some into a script", maxSteps)
			}
			return commands
		}
		command := f.command(path, item)
		if i == 0 {
			f.firstWhen(path, f.place(item), command)
		}
		commands = append(commands, command)
	}
	return commands
}

// firstWhen complains of a first command that waits for another to fail.
func (f *file) firstWhen(path string, n *yaml.Node, command *configv1.Command) {
	if command.GetWhen() == configv1.Command_WHEN_FAILURE {
		f.complainf(n, "%s: no command comes before this one and could fail, so it would never run: put it after the others", path)
	}
}

func (f *file) when(path string, n *yaml.Node) configv1.Command_When {
	when, _ := oneWord(f, path, n, whenWords(), "a time for a command")
	return when
}

func (f *file) shell(path string, n *yaml.Node) configv1.Shell {
	shell, _ := oneWord(f, path, n, shellWords(), "a shell that Forge knows")
	return shell
}

func (f *file) command(path string, n *yaml.Node) *configv1.Command {
	command := &configv1.Command{}
	n = f.resolve(n)
	switch {
	case n == nil:
	case n.Kind == yaml.MappingNode && forgotQuotes(n):
		f.complainf(n.Content[0], "%s: a command with a colon and a space in it must be in quotes", path)
	case n.Kind == yaml.MappingNode:
		readMapping(f, path, n, command, commandKeys())
	case n.Kind == yaml.SequenceNode:
		f.complainf(n, "%s: expected a command, or name and run, found a list", path)
	default:
		command.Run = f.commandText(path, n)
	}
	return named(command)
}

// named has a command that got no name go by its first line.
func named(command *configv1.Command) *configv1.Command {
	switch {
	case command.GetName() != "":
	case command.GetImage() != nil:
		command.Name = nameOfImage(command.GetImage())
	default:
		command.Name = firstLine(command.GetRun())
	}
	return command
}

// forgotQuotes recognizes `- echo done: yes`, which YAML takes for a key with a
// value.
func forgotQuotes(n *yaml.Node) bool {
	return len(n.Content) == 2 && strings.Contains(n.Content[0].Value, " ")
}

// commandText takes `true` and `false`, which are commands too.
func (f *file) commandText(path string, n *yaml.Node) string {
	n = f.resolve(n)
	switch {
	case n == nil:
		return ""
	case n.ShortTag() == "!!bool":
		return n.Value
	}
	text, n, ok := f.text(path, n)
	if ok && strings.TrimSpace(text) == "" {
		f.complainf(n, "%s: a command is empty", path)
	}
	return text
}

func (f *file) commandName(path string, n *yaml.Node) string {
	name, n, ok := f.text(path, n)
	switch {
	case !ok:
	case strings.TrimSpace(name) == "":
		f.complainf(n, "%s is empty: give it a name, or leave it out", path)
	case strings.ContainsFunc(name, unicode.IsControl):
		f.complainf(n, "%s: expected one line of text", path)
	case len([]rune(name)) > maxName:
		f.complainf(n, "%s is longer than %d characters", path, maxName)
	}
	return name
}

// firstLine names a command that has no name.
func firstLine(run string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(run), "\n")
	line = strings.TrimSpace(line)
	if runes := []rune(line); len(runes) > maxName {
		return string(runes[:maxName-1]) + "…"
	}
	return line
}

// deploy is commands, or these or jobs with the address of what they deploy.
// isAddress reports whether people can be shown a text as an address.
func isAddress(text string) bool {
	address, err := url.Parse(text)
	return err == nil && address.Host != "" && (address.Scheme == "http" || address.Scheme == "https")
}

func (f *file) environment(path string, n *yaml.Node) map[string]string {
	entries, _ := f.entries(path, n)
	environment := make(map[string]string, len(entries))
	for _, e := range entries {
		f.variable(path, e.key)
		environment[e.name], _, _ = f.bare(e.path, e.value)
	}
	return environment
}

func (r *reader) variable(path string, n *yaml.Node) {
	if !variablePattern.MatchString(n.Value) {
		r.complainf(n, "%s: %q cannot be the name of a variable: letters, digits and _, no digit first", path, clip(n.Value))
	}
}

func (f *file) ports(path string, n *yaml.Node) []*configv1.Port {
	entries, _ := f.entries(path, n)
	var ports []*configv1.Port
	hosts := map[int32]bool{}
	for _, e := range entries {
		container, ok := f.port(path, e.key)
		host, hostOK := f.port(e.path, e.value)
		if !ok || !hostOK {
			continue
		}
		if hosts[host] {
			f.complainf(e.value, "%s: port %d of the host is taken by another line", e.path, host)
		}
		hosts[host] = true
		ports = append(ports, &configv1.Port{Container: container, Host: host})
	}
	return ports
}

func (f *file) port(path string, n *yaml.Node) (int32, bool) {
	text, n, ok := f.bare(path, n)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 {
		f.complainf(n, "%s: %q is not a port: expected a number from 1 to 65535", path, clip(text))
		return 0, false
	}
	return int32(number), true
}

func (f *file) push(path string, n *yaml.Node) *configv1.Push {
	push := &configv1.Push{}
	before := len(f.problems)
	readMapping(f, path, n, push, pushKeys())
	if len(f.problems) == before && len(push.GetBranches())+len(push.GetTags()) == 0 {
		f.complainf(n, "%s matches no push: give it branches or tags", path)
	}
	for _, p := range f.pipelines {
		if p.into != push.GetExecute() || p.drafts == nil {
			continue
		}
		p.branches = push.GetBranches()
		switch {
		case len(push.GetTags()) == 0:
			p.events = []configv1.Condition_Event{configv1.Condition_EVENT_PUSH}
		case len(push.GetBranches()) == 0:
			p.events = []configv1.Condition_Event{configv1.Condition_EVENT_TAG}
		}
	}
	return push
}

func (f *file) secrets(path string, n *yaml.Node) []string {
	items := f.items(path, n)
	var secrets []string
	seen := map[string]bool{}
	for _, item := range items {
		name, item, ok := f.text(path, item)
		if !ok {
			continue
		}
		f.variable(path, item)
		if seen[name] {
			f.complainf(item, "%s: %q is named twice", path, clip(name))
		}
		seen[name] = true
		secrets = append(secrets, name)
	}
	return secrets
}

func (f *file) globs(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	var globs []string
	for _, item := range items {
		glob, item, ok := f.text(at, item)
		if !ok {
			continue
		}
		if !doublestar.ValidatePattern(glob) || glob == "" {
			f.complainf(item, "%s: %q is not a pattern: expected one such as main, release/* or docs/**", at, clip(glob))
		}
		globs = append(globs, glob)
	}
	return globs
}

func (f *file) duration(path string, n *yaml.Node) *durationpb.Duration {
	text, n, ok := f.bare(path, n)
	if !ok {
		return nil
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration < time.Second {
		f.complainf(n, "%s: %q is not a duration of a second or more: expected one such as 90s, 30m or 1h30m", path, clip(text))
	}
	return durationpb.New(duration)
}

// keep is how long, or 0 for not at all.
func (f *file) keep(path string, n *yaml.Node) *durationpb.Duration {
	text, n, ok := f.bare(path, n)
	if !ok {
		return nil
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration != 0 && duration < time.Second {
		f.complainf(n, "%s: %q is not how long a container is kept: expected a duration such as 15m or 1h, or 0 for not at all", path, clip(text))
	}
	return durationpb.New(duration)
}

func (f *file) cpus(path string, n *yaml.Node) float64 {
	text, n, ok := f.bare(path, n)
	if !ok {
		return 0
	}
	cpus, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(cpus) || cpus < 0.01 || cpus > maxCPUs {
		f.complainf(n, "%s: %q is not a number of cores: expected one such as 2 or 0.5, at most %d", path, clip(text), maxCPUs)
	}
	return cpus
}

func (f *file) memory(path string, n *yaml.Node) int64 {
	text, n, ok := f.bare(path, n)
	if !ok {
		return 0
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size < minBytes || size > maxBytes {
		f.complainf(n, "%s: %q is not a size of memory: expected one such as 512MiB or 4GiB, at least 6MiB", path, clip(text))
	}
	return int64(min(size, maxBytes))
}
