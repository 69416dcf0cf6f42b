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
	renamed  map[string]string
	files    []string // variables of secrets that may be in a file
	flags    []*kong.Flag
	problems []error
}

// fileSuffix is what a variable of a secret ends with where its value is the path
// of a file that holds the secret.
const fileSuffix = "_FILE"

func newSources(src Source, flags []*kong.Flag) *sources {
	s := &sources{prefix: src.Prefix, env: map[string]string{}, known: slices.Clone(src.Known), renamed: src.Renamed, flags: flags}
	var own []string
	for _, flag := range flags {
		own = append(own, flag.Envs...)
	}
	for _, flag := range flags {
		for _, name := range flag.Envs {
			// Where there is a setting by that name, that reads the file.
			if flag.Tag.Has("secret") && !slices.Contains(own, name+fileSuffix) {
				s.files = append(s.files, name)
				s.known = append(s.known, name+fileSuffix)
			}
		}
	}
	s.known = append(s.known, own...)
	slices.Sort(s.known)
	for _, variable := range slices.Sorted(slices.Values(src.Env)) {
		name, value, _ := strings.Cut(variable, "=")
		switch now := s.renamed[name]; {
		case now != "":
			s.complainf("%s in the environment: this setting is named %s now", name, now)
		case strings.HasPrefix(name, s.prefix) && !slices.Contains(s.known, name):
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
		text, path := s.env[name], s.env[name+fileSuffix]
		if value, given := s.either(flag, name, text, path, "%s in the environment", name); given {
			return value, nil
		}
	}
	for _, name := range flag.Envs {
		entry, other := s.file[s.key(name)], s.file[s.key(name+fileSuffix)]
		text, path := entry.text(flag), other.text(flag)
		if value, given := s.either(flag, name, text, path, "%s in %s, line %d", s.key(name), s.path, max(entry.line, other.line)); given {
			return value, nil
		}
	}
	return nil, nil //nolint:nilnil // to kong this is a setting that is not given here
}

// either is a setting that was given in one of two forms: as its text, or as the
// path of a file that holds it.
func (s *sources) either(flag *kong.Flag, name, text, path, where string, args ...any) (value any, given bool) {
	where = fmt.Sprintf(where, args...)
	if !slices.Contains(s.files, name) {
		path = ""
	}
	if text == "" && path == "" {
		return nil, false
	}
	text, err := FromFile(text, path)
	if err != nil {
		s.complainf("%s: %w", where, err)
		return nil, true
	}
	if text == "" {
		s.complainf("%s: the file %s is empty", where, path)
		return nil, true
	}
	return s.check(flag, text, where), true
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
		switch now := s.renamed[s.prefix+strings.ToUpper(key)]; {
		case now != "":
			s.complainf("%s in %s, line %d: this setting is named %s now", key, s.path, s.file[key].line, s.key(now))
		case !slices.Contains(keys, key):
			s.complainf("unknown setting %s in %s, line %d%s", key, s.path, s.file[key].line, didYouMean(key, keys))
		}
	}
}

// renamedFlag is an error about the first argument that is the flag of a variable
// of old, or nil.
func (s *sources) renamedFlag(args []string) error {
	for _, arg := range args {
		given, _, _ := strings.Cut(arg, "=")
		for old, now := range s.renamed {
			if given != "--"+strings.ReplaceAll(s.key(old), "_", "-") {
				continue
			}
			for _, flag := range s.flags {
				if slices.Contains(flag.Envs, now) {
					return fmt.Errorf("%s: this flag is named --%s now", given, flag.Name)
				}
			}
		}
	}
	return nil
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
