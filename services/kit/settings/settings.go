// Package settings reads what a binary is told: flags win over the environment,
// the environment over the file, the file over the defaults. What it does not
// know, or cannot read, stops start-up with an error that says where it stands.
//
// A binary declares a kong struct whose fields carry `env:"FORGE_PORT"
// default:"9098" help:"…"`, and `secret:""` when the value must not be shown. A
// secret may be in a file, whose path FORGE_…_FILE is. The settings
// file is YAML and flat: the key of FORGE_PORT is port. An empty value counts as
// absent, since that is what compose files make of a variable that is not set.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Source is where the settings of a binary come from.
type Source struct {
	Name        string // of the binary
	Description string
	Args        []string // without the binary
	Env         []string // as os.Environ gives it
	Prefix      string   // of the variables that are held to be settings: "FORGE_"
	// Known are further variables with the prefix that are no settings of this
	// binary but no mistake either. They may be keys of the file, too.
	Known []string
	// Renamed are variables by which a setting was read once, with those by which
	// it is read: an old one stops the start, as do its key and its flag.
	Renamed        map[string]string
	Vars           kong.Vars
	Stdout, Stderr io.Writer
	// Exit ends the process after --help; nil for os.Exit.
	Exit func(code int)
}

// defaultFile is read when it is there; any other file has been asked for.
const defaultFile = "forge.yaml"

// File is the settings file that was read, or would have been if it were there. A
// command's Run may ask for it.
type File string

// Parse fills dst, a pointer to a kong struct. It adds the flag --config, with
// its variable, that names the file.
func Parse(dst any, src Source) (*kong.Context, error) {
	var own struct {
		Config string `env:"${prefix}CONFIG" placeholder:"FILE" help:"File with settings, forge.yaml if present."`
	}
	exit := src.Exit
	if exit == nil {
		exit = os.Exit
	}
	parser, err := kong.New(dst,
		kong.Name(src.Name),
		kong.Description(src.Description),
		kong.Writers(src.Stdout, src.Stderr),
		kong.Exit(exit),
		kong.Embed(&own),
		src.Vars.CloneWith(kong.Vars{"prefix": src.Prefix}),
		kong.ValueFormatter(helpWithVariable),
	)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", src.Name, err)
	}
	values := newSources(src, takeFlags(parser.Model))
	kong.Resolvers(values).Apply(parser) //nolint:errcheck // it has no error to give
	ctx, err := parser.Parse(src.Args)
	if problems := errors.Join(values.problems...); problems != nil {
		return nil, problems
	}
	if wrong, ok := errors.AsType[*kong.ParseError](err); ok {
		if renamed := values.renamedFlag(src.Args); renamed != nil {
			return ctx, renamed
		}
		err = mistake{wrong, src.Name}
	}
	if err == nil {
		err = noneNegative(ctx.Flags())
	}
	if err == nil {
		ctx.Bind(File(cmp.Or(values.path, defaultFile)))
	}
	return ctx, err
}

// noneNegative refuses settings that are numbers or durations below zero: none means
// anything then.
func noneNegative(flags []*kong.Flag) error {
	for _, flag := range flags {
		value := flag.Target
		if len(flag.Envs) > 0 && (value.CanInt() && value.Int() < 0 || value.CanFloat() && value.Float() < 0) {
			return fmt.Errorf("%s (--%s) is %v: it cannot be below 0", flag.Envs[0], flag.Name, value.Interface())
		}
	}
	return nil
}

// mistake is a command line that cannot be taken, with where to look up what can.
type mistake struct {
	*kong.ParseError
	name string
}

func (m mistake) Error() string {
	command := m.name
	if verb := m.Context.Selected(); verb != nil {
		command = verb.FullPath()
	}
	// An empty value counts as absent, so it is no choice.
	return strings.Replace(m.ParseError.Error(), `must be one of "",`, "must be one of ", 1) + "; see " + command + " --help"
}

// takeFlags lists the flags of all commands and takes the reading of the
// environment away from kong, which would read this process's and let the file
// win over it.
func takeFlags(model *kong.Application) []*kong.Flag {
	var flags []*kong.Flag
	// The visitor has no error of its own.
	_ = kong.Visit(model.Node, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			flag.Tag.Envs = nil // flag.Envs keeps them
			flags = append(flags, flag)
		}
		return next(nil)
	})
	return flags
}

func helpWithVariable(value *kong.Value) string {
	if value.Flag == nil || len(value.Flag.Envs) == 0 {
		return value.Help
	}
	return fmt.Sprintf("%s ($%s)", value.Help, value.Flag.Envs[0])
}

// Setting describes one setting of a binary.
type Setting struct {
	Env     string // its variable
	Flag    string // "port", without dashes
	Default string
	Help    string
	Secret  bool
}

// Names lists every setting that dst, a pointer to a kong struct, declares with
// a variable, in order and each variable once. It is for tests that hold the
// documentation against the code, and panics on a struct that kong refuses.
func Names(dst any, vars ...kong.Vars) []Setting {
	all := kong.Vars{}
	for _, v := range vars {
		all = all.CloneWith(v)
	}
	var settings []Setting
	seen := map[string]bool{}
	for _, flag := range takeFlags(kong.Must(dst, all).Model) {
		if len(flag.Envs) == 0 || seen[flag.Envs[0]] {
			continue
		}
		seen[flag.Envs[0]] = true
		settings = append(settings, Setting{
			Env: flag.Envs[0], Flag: flag.Name, Default: flag.Default, Help: flag.Help, Secret: flag.Tag.Has("secret"),
		})
	}
	return settings
}

// FromFile is a secret given directly or as the path of a file that holds it; a
// line end after it is cut off. Both at once is an error, neither is "".
func FromFile(value, path string) (string, error) {
	switch {
	case path == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("given directly and as the file %s: keep one of the two", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("secret from a file: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
