package buildfile

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxInputs           = 20
	maxInputOptions     = 100
	maxInputName        = 60
	maxInputValue       = 4 << 10 // bytes that a file can give an input
	maxInputDescription = 200
	inputPrefix         = "INPUT_"
)

var inputPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// asking reads what can be asked for by hand.
type asking struct{ *file }

func manualKeys() []key[*configv1.Manual] {
	return append([]key[*configv1.Manual]{
		{name: "inputs", read: func(f *file, path string, n *yaml.Node, m *configv1.Manual) {
			m.Inputs = asking{f}.inputs(path, n)
		}},
	}, lent(partKeys("the commands that run when somebody asks for it", byHand), func(m *configv1.Manual) *configv1.Pipeline { return made(&m.Execute) })...)
}

// input is one, with the places of its parts.
type input struct {
	*configv1.Input
	preset, options *yaml.Node
}

func inputKeys() []key[*input] {
	return []key[*input]{
		{name: "description", read: func(f *file, path string, n *yaml.Node, i *input) {
			i.Description = asking{f}.description(path, n)
		}},
		{name: "default", read: func(f *file, path string, n *yaml.Node, i *input) {
			i.Default, i.preset = asking{f}.value(path, n)
		}},
		{name: "options", read: func(f *file, path string, n *yaml.Node, i *input) {
			i.Options, i.options = asking{f}.options(path, n), n
		}},
		{name: "required", read: func(f *file, path string, n *yaml.Node, i *input) {
			i.Required = f.truth(path, n)
		}},
		{name: "secret", read: func(f *file, path string, n *yaml.Node, i *input) {
			i.Secret = f.truth(path, n)
		}},
	}
}

func (f asking) inputs(at string, n *yaml.Node) []*configv1.Input {
	entries, _ := f.entries(at, n)
	if len(entries) > maxInputs {
		f.complainf(entries[maxInputs].key, "%s has more than %d inputs", at, maxInputs)
		return nil
	}
	var all []*configv1.Input
	for _, e := range entries {
		i := f.input(e)
		if same := slices.IndexFunc(all, func(other *configv1.Input) bool { return other.GetVariable() == i.GetVariable() }); same >= 0 {
			f.complainf(e.key, "%s: %q and %q would both be the variable %s: give one another name", at, all[same].GetName(), clip(e.name), clip(i.GetVariable()))
		}
		all = append(all, i)
	}
	return all
}

func (f asking) input(e entry) *configv1.Input {
	i := &input{Input: &configv1.Input{Name: e.name, Variable: inputPrefix + clean(e.name)}}
	if !inputPattern.MatchString(e.name) || len(e.name) > maxInputName {
		f.complainf(e.key, "%s: %q cannot be the name of an input: letters, digits, _ and -, a letter first, %d at most", e.path, clip(e.name), maxInputName)
	}
	if f.place(e.value).ShortTag() == "!!null" { // nothing is said of it but its name
		return i.Input
	}
	before := len(f.problems)
	readMapping(f.file, e.path, e.value, i, inputKeys())
	if len(f.problems) > before {
		return i.Input
	}
	switch {
	case i.GetSecret() && i.GetDefault() != "":
		f.complainf(i.preset, "%s.default: a secret that stands in a file is none: leave it out", e.path)
	case i.GetSecret() && i.options != nil:
		f.complainf(f.place(i.options), "%s.options: a secret that is one of a few is none: leave them out", e.path)
	case i.GetDefault() != "" && len(i.GetOptions()) > 0 && !slices.Contains(i.GetOptions(), i.GetDefault()):
		f.complainf(i.preset, "%s.default: %q is not one of the options, which are %s", e.path, clip(i.GetDefault()), clip(strings.Join(i.GetOptions(), ", ")))
	}
	return i.Input
}

// value is what an input can be: whatever YAML takes it for, as it is written.
func (f asking) value(at string, n *yaml.Node) (string, *yaml.Node) {
	text, n, ok := f.bare(at, n)
	if ok && len(text) > maxInputValue {
		f.complainf(n, "%s is longer than %d KiB", at, maxInputValue>>10)
	}
	return text, n
}

func (f asking) options(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	if len(items) > maxInputOptions {
		f.complainf(items[maxInputOptions], "%s has more than %d options", at, maxInputOptions)
		return nil
	}
	var all []string
	for _, item := range items {
		option, item := f.value(at, item)
		switch {
		case item == nil:
		case option == "":
			f.complainf(item, "%s: an option is empty: an input that is not required can be left empty anyway", at)
		case slices.Contains(all, option):
			f.complainf(item, "%s: %q is named twice", at, clip(option))
		}
		all = append(all, option)
	}
	return all
}

func (f asking) description(at string, n *yaml.Node) string {
	text, n, ok := f.text(at, n)
	switch {
	case !ok:
	case strings.ContainsFunc(text, unicode.IsControl):
		f.complainf(n, "%s: expected one line of text", at)
	case len([]rune(text)) > maxInputDescription:
		f.complainf(n, "%s is longer than %d characters", at, maxInputDescription)
	}
	return text
}
