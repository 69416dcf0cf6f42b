package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/forge-ci/forge/services/kit/nearest"
)

// sources gives kong the value of a setting that no flag gave. Its errors gather
// in problems, because kong would put the name of an unrelated flag before them.
type sources struct {
	prefix   string
	env      map[string]string
	file     map[string]entry // by key, once loaded
	path     string           // of the file
	loaded   bool
	known    []string // variables
	flags    []*kong.Flag
	problems []error
}

func newSources(src Source, flags []*kong.Flag) *sources {
	s := &sources{prefix: src.Prefix, env: map[string]string{}, known: slices.Clone(src.Known), flags: flags}
	for _, flag := range flags {
		s.known = append(s.known, flag.Envs...)
	}
	slices.Sort(s.known)
	for _, variable := range slices.Sorted(slices.Values(src.Env)) {
		name, value, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, s.prefix) && !slices.Contains(s.known, name) {
			s.complainf("unknown setting %s in the environment%s", name, didYouMean(name, s.known))
		}
		if value != "" {
			s.env[name] = value
		}
	}
	return s
}

func (s *sources) complainf(format string, args ...any) {
	s.problems = append(s.problems, fmt.Errorf(format, args...))
}

// Validate has nothing left to find.
func (s *sources) Validate(*kong.Application) error { return nil }

// Resolve is called for each flag of the selected command that was not given.
func (s *sources) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !s.loaded {
		s.loaded = true
		s.load(ctx)
	}
	for _, name := range flag.Envs {
		if text, ok := s.env[name]; ok {
			return s.check(flag, text, name+" in the environment"), nil
		}
	}
	for _, name := range flag.Envs {
		entry := s.file[s.key(name)]
		if text := entry.text(flag); text != "" {
			return s.check(flag, text, fmt.Sprintf("%s in %s, line %d", s.key(name), s.path, entry.line)), nil
		}
	}
	return nil, nil //nolint:nilnil // to kong this is a setting that is not given here
}

// check reads the text as kong will, to say where a bad value comes from.
func (s *sources) check(flag *kong.Flag, text, where string) any {
	into := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(text, kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, into); err != nil {
		s.complainf("%s: %w", where, err)
		return nil
	}
	if flag.Enum != "" && into.Kind() == reflect.String && !flag.EnumMap()[text] {
		s.complainf("%s: must be one of %s, not %q", where, strings.Join(flag.EnumSlice(), ", "), text)
		return nil
	}
	return text
}

// load reads the file that --config names, else its variable, else custom.
func (s *sources) load(ctx *kong.Context) {
	s.path = s.env[s.prefix+"CONFIG"]
	for _, flag := range s.flags {
		if flag.Name == "config" {
			if given, _ := ctx.FlagValue(flag).(string); given != "" {
				s.path = given
			}
		}
	}
	asked := s.path != ""
	if !asked {
		s.path = defaultFile
	}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return
	}
	if err != nil {
		s.complainf("settings file: %w", err)
		return
	}
	if s.file, err = parseFile(text); err != nil {
		s.complainf("settings file %s: %w", s.path, err)
		return
	}
	var keys []string
	for _, name := range s.known {
		keys = append(keys, s.key(name))
	}
	for _, key := range sortedByLine(s.file) {
		if !slices.Contains(keys, key) {
			s.complainf("unknown setting %s in %s, line %d%s", key, s.path, s.file[key].line, didYouMean(key, keys))
		}
	}
}

func (s *sources) key(variable string) string {
	return strings.ToLower(strings.TrimPrefix(variable, s.prefix))
}

// didYouMean ends the sentence about an unknown name with the known one most like
// it, if any is like it at all.
func didYouMean(name string, known []string) string {
	best := nearest.Name(name, known, len(name)/2)
	if best == "" {
		return "; --help lists the settings"
	}
	return fmt.Sprintf(": did you mean %s?", best)
}
