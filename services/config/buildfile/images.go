package buildfile

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxTags      = 20
	maxPlatforms = 8
	maxArgs      = 100
	maxArg       = 8 << 10 // bytes
)

var (
	targetPattern        = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,127}$`)
	imagePlatformPattern = regexp.MustCompile(`^linux/[a-z0-9]{1,20}(/v[0-9]{1,2})?$`)
	variableHole         = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
)

// imaging reads what a step builds as an image.
type imaging struct{ *file }

func imageKeys() []key[*configv1.ImageStep] {
	return []key[*configv1.ImageStep]{
		{name: "dockerfile", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Dockerfile = imaging{f}.path(at, n)
		}},
		{name: "context", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			if i.Context = (imaging{f}).path(at, n); i.GetContext() == "." {
				i.Context = ""
			}
		}},
		{name: "target", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Target = imaging{f}.target(at, n)
		}},
		{name: "args", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Args = imaging{f}.args(at, n)
		}},
		{name: "secrets", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Secrets = f.secrets(at, n)
		}},
		{name: "platforms", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Platforms = imaging{f}.platforms(at, n)
		}},
		{name: "tags", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Tags = imaging{f}.tags(at, n)
		}},
		{name: "push", with: "tags", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Push = f.truth(at, n)
		}},
		{name: "output", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			if all := f.outputs(at, n); len(all) == 1 {
				i.Output = all[0]
			} else if len(all) > 1 {
				f.complainf(f.place(n), "%s: expected the name of one variable", at)
			}
		}},
		{name: "load", with: "output", read: func(f *file, at string, n *yaml.Node, i *configv1.ImageStep) {
			i.Load = f.truth(at, n)
		}},
	}
}

func (f imaging) step(at string, n *yaml.Node) *configv1.ImageStep {
	step := &configv1.ImageStep{}
	before := len(f.problems)
	all := readMapping(f.file, at, n, step, imageKeys())
	if all == nil {
		return step
	}
	f.images[step] = f.place(n)
	switch {
	case len(f.problems) > before:
	case all["output"] != nil && all["tags"] == nil && !step.GetLoad():
		f.complainf(all["output"], "%s.output means nothing without tags, or load: true: give it one of them, or leave it out", at)
	case step.GetLoad() && len(step.GetPlatforms()) > 1:
		f.complainf(all["load"], "%s.load: an image of one platform can be loaded, and this one has %d", at, len(step.GetPlatforms()))
	}
	return step
}

// needPattern is the whole of a reference that an image of another job is used by.
var needPattern = regexp.MustCompile(`^\$\{(NEEDS_[A-Z0-9_]+_[A-Za-z0-9_]+)\}$`)

// ofNeed reads ${NEEDS_JOB_OUTPUT} in the place of an image's name, which stays as it is
// until the job begins. false: it is a name like any other.
func (f imaging) ofNeed(at string, n *yaml.Node) (string, bool) {
	n = f.place(n)
	found := needPattern.FindStringSubmatch(n.Value)
	if f.cell == nil || found == nil {
		return "", false
	}
	if _, ofMatrix := f.cell.value(found[1]); ofMatrix {
		return "", false
	}
	if !slices.Contains(f.cell.built, found[1]) {
		known := "none of the jobs that this one needs builds one that it hands on: the step takes output, and load or push"
		if len(f.cell.built) > 0 {
			known = "those of the jobs that this one needs are " + listed(f.cell.built)
		}
		f.complainf(n, "%s: %s is no image: %s", at, clip(n.Value), known)
	}
	return n.Value, true
}

// handsOn are the outputs of a job that are images others may be run from.
func (d *draft) handsOn() (outputs []string) {
	for _, command := range d.job.GetCommands() {
		step := command.GetImage()
		if d.matrix == nil && step.GetOutput() != "" && (step.GetLoad() || step.GetPush()) {
			outputs = append(outputs, step.GetOutput())
		}
	}
	return outputs
}

// nameOfImage is what a step goes by that got no name.
func nameOfImage(step *configv1.ImageStep) string {
	name := "Dockerfile"
	switch {
	case len(step.GetTags()) > 0:
		name = step.GetTags()[0]
	case step.GetDockerfile() != "":
		name = step.GetDockerfile()
	case step.GetContext() != "":
		name = step.GetContext() + "/" + name
	}
	return firstLine("image " + name)
}

// path is one within the workspace.
func (f imaging) path(at string, n *yaml.Node) string {
	text, n, ok := f.text(at, n)
	if !ok {
		return ""
	}
	clean := path.Clean(text)
	switch {
	case strings.TrimSpace(text) == "":
		f.complainf(n, "%s is empty: expected a path within the workspace, or leave it out", at)
	case strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxPath:
		f.complainf(n, "%s: expected one line of 1,000 bytes at most", at)
	case path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../"):
		f.complainf(n, "%s: %q is outside of the workspace: expected a path within it, such as deploy/Dockerfile; no address either", at, clip(text))
	case strings.Contains(text, "://") || strings.Contains(text, hole):
		f.complainf(n, "%s: %q is no path within the workspace: expected one such as deploy/Dockerfile", at, clip(text))
	}
	return clean
}

func (f imaging) target(at string, n *yaml.Node) string {
	text, n, ok := f.text(at, n)
	if ok && !targetPattern.MatchString(text) {
		f.complainf(n, "%s: %q cannot be the name of a stage: letters, digits, and _ . -, a letter first", at, clip(text))
	}
	return text
}

func (f imaging) args(at string, n *yaml.Node) map[string]string {
	entries, _ := f.entries(at, n)
	if len(entries) > maxArgs {
		f.complainf(f.place(n), "%s has more than %d arguments: put them into a file of the context", at, maxArgs)
		return nil
	}
	args := make(map[string]string, len(entries))
	for _, e := range entries {
		f.variable(at, e.key)
		text, value, ok := f.bare(e.path, e.value)
		if !ok {
			continue
		}
		if len(text) > maxArg {
			f.complainf(value, "%s has more than %d bytes: put it into a file of the context", e.path, maxArg)
		}
		f.holes(e.path, value, text)
		args[e.name] = text
	}
	return args
}

func (f imaging) platforms(at string, n *yaml.Node) []string {
	var all []string
	for _, item := range f.items(at, n) {
		text, item, ok := f.text(at, item)
		switch {
		case !ok:
		case !imagePlatformPattern.MatchString(text):
			f.complainf(item, "%s: %q is not a platform of images: expected one such as linux/amd64 or linux/arm/v7", at, clip(text))
		case slices.Contains(all, text):
			f.complainf(item, "%s: %q is named twice", at, clip(text))
		case len(all) == maxPlatforms:
			f.complainf(item, "%s has more than %d platforms", at, maxPlatforms)
			return all
		default:
			all = append(all, text)
		}
	}
	return all
}

func (f imaging) tags(at string, n *yaml.Node) []string {
	var all []string
	for _, item := range f.items(at, n) {
		text, item, ok := f.text(at, item)
		if !ok || !f.holes(at, item, text) {
			continue
		}
		if len(all) == maxTags {
			f.complainf(item, "%s has more than %d tags", at, maxTags)
			return all
		}
		registry, _, _ := strings.Cut(text, "/")
		example := variableHole.ReplaceAllString(text, "x")
		switch {
		case strings.Contains(registry, hole) && strings.Contains(text, "/"):
			f.complainf(item, "%s: %q: the registry, or what comes first, cannot be a variable: write its name, such as ghcr.io", at, clip(text))
		case len(text) > 512 || strings.Contains(text, "@") || !imagePattern.MatchString(example):
			f.complainf(item, "%s: %q is not a name for an image: expected one such as ghcr.io/acme/web:${FORGE_SHA}", at, clip(text))
		case slices.Contains(all, text):
			f.complainf(item, "%s: %q is named twice", at, clip(text))
		}
		all = append(all, text)
	}
	return all
}

// holes reports whether each ${ begins a variable, and complains where one does not.
func (f imaging) holes(at string, n *yaml.Node, text string) bool {
	rest := variableHole.ReplaceAllString(text, "")
	if strings.Contains(rest, hole) {
		f.complainf(n, "%s: ${ begins the name of a variable, which } ends, such as ${FORGE_SHA}: nothing else is filled in", at)
		return false
	}
	return true
}

// unused complains of images that are loaded where no job can come after.
func (f imaging) unused(commands []*configv1.Command) {
	for _, command := range commands {
		if n := f.images[command.GetImage()]; n != nil && command.GetImage().GetLoad() {
			f.complainf(n, "image.load: a loaded image is for jobs that need this one, and there are no jobs here: leave it out")
		}
	}
}

// check complains of what image steps name and their job does not have.
func (f imaging) check(commands []*configv1.Command, secrets []string) {
	for _, command := range commands {
		step := command.GetImage()
		n := f.images[step]
		if n == nil {
			continue
		}
		delete(f.images, step) // a job is read once, and stands in several cells
		for _, name := range step.GetSecrets() {
			if !slices.Contains(secrets, name) {
				f.complainf(n, "image.secrets: %s is not one of the secrets of the job: name it there as well", clip(name))
			}
		}
		for _, name := range secrets {
			if stands := hole + name + "}"; slices.ContainsFunc(slices.Concat(step.GetTags(), slices.Collect(maps.Values(step.GetArgs()))), func(text string) bool {
				return strings.Contains(text, stands)
			}) {
				f.complainf(n, "image: %s is a secret, and tags and arguments can be read in every image: name it in image.secrets, and mount it where it is needed", clip(name))
			}
		}
	}
}

// addImageOutputs has the job hand on what its image steps set. The cells of a matrix
// would each say something else.
func (d *draft) addImageOutputs() {
	for _, command := range d.job.GetCommands() {
		if name := command.GetImage().GetOutput(); name != "" && d.matrix == nil && !slices.Contains(d.job.GetOutputs(), name) {
			d.job.Outputs = append(d.job.Outputs, name)
		}
	}
}
