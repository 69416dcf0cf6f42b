package input

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/mask"
	"github.com/forge-ci/forge/services/kit/nearest"
)

const (
	largest      = 64 << 10  // bytes of a value: Linux lets a variable hold twice that
	largestInAll = 256 << 10 // bytes of all values that are given for a build
	mostGiven    = 100       // beyond what any file asks for
	mostShown    = 200       // characters of a value
	mostQuoted   = 60
)

// Value is what an input of .forge.yml is in a build.
type Value struct {
	*configv1.Input
	Value string
}

// Bound refuses values that no file could ask for, whatever it says.
func Bound(given map[string]string) error {
	if len(given) > mostGiven {
		return fault.Newf(fault.Invalid, "inputs: %d are more than any build takes", len(given))
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch size += len(value); {
		case len(value) > largest:
			return fault.Newf(fault.Invalid, "input %s: it has %d bytes, and %d KiB is the most: put it into a file of the repository, or where the commands can fetch it",
				quoted(name), len(value), largest>>10)
		case size > largestInAll:
			return fault.Newf(fault.Invalid, "inputs: in all they are larger than %d KiB", largestInAll>>10)
		case strings.Contains(value, "\x00"):
			return fault.Newf(fault.Invalid, "input %s: a variable cannot hold a NUL; encode it, in base64 for instance", quoted(name))
		case !utf8.ValidString(value):
			return fault.Newf(fault.Invalid, "input %s: it is not UTF-8; encode it, in base64 for instance", quoted(name))
		}
	}
	return nil
}

// Check holds what is given against what a file asks for, and fills in its defaults. Its
// error quotes no value of a secret.
func Check(asked *configv1.Manual, given map[string]string) ([]Value, error) {
	if err := Bound(given); err != nil {
		return nil, err
	}
	names := make([]string, len(asked.GetInputs()))
	for n, i := range asked.GetInputs() {
		names[n] = i.GetName()
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			return nil, unknown(name, names)
		}
	}
	var all []Value
	for _, i := range asked.GetInputs() {
		value, isGiven := given[i.GetName()]
		if !isGiven || value == "" {
			value = i.GetDefault()
		}
		switch {
		case value == "" && i.GetRequired():
			return nil, fault.Newf(fault.Invalid, "input %s is required%s", i.GetName(), choice(i))
		case value != "" && len(i.GetOptions()) > 0 && !slices.Contains(i.GetOptions(), value):
			return nil, fault.Newf(fault.Invalid, "input %s: %s is not one of its options%s", i.GetName(), quoted(value), choice(i))
		case value != "" && i.GetSecret() && len(strings.TrimSpace(value)) < mask.Shortest:
			return nil, fault.Newf(fault.Invalid, "input %s: a secret of under %d bytes cannot be masked in logs", i.GetName(), mask.Shortest)
		}
		all = append(all, Value{i, value})
	}
	return all, nil
}

func unknown(name string, names []string) error {
	if meant := nearest.Name(name, names, max(2, len(name)/3)); meant != "" {
		return fault.Newf(fault.Invalid, "there is no input %s, did you mean %s?", quoted(name), meant)
	}
	if len(names) == 0 {
		return fault.Newf(fault.Invalid, "there is no input %s: manual in .forge.yml has none", quoted(name))
	}
	return fault.Newf(fault.Invalid, "there is no input %s: manual in .forge.yml has %s", quoted(name), strings.Join(names, ", "))
}

func choice(i *configv1.Input) string {
	if len(i.GetOptions()) == 0 {
		return ""
	}
	return ": expected " + strings.Join(i.GetOptions(), ", ")
}

// quoted is what somebody gave, so that it cannot be taken for a part of our text.
func quoted(text string) string {
	if runes := []rune(text); len(runes) > mostQuoted {
		text = string(runes[:mostQuoted-1]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Show is what people see of values: of those that were given or have a default.
func Show(all []Value) []*schedulerv1.Input {
	var shown []*schedulerv1.Input
	for _, v := range all {
		switch one := (&schedulerv1.Input{Name: v.GetName(), Secret: v.GetSecret()}); {
		case v.Value == "":
		case v.GetSecret():
			shown = append(shown, one)
		default:
			one.Value = v.Value
			if runes := []rune(v.Value); len(runes) > mostShown {
				one.Value, one.Clipped = string(runes[:mostShown]), true
			}
			shown = append(shown, one)
		}
	}
	return shown
}
