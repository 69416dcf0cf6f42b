package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/forge-ci/forge/services/config/buildfile"
)

type check struct {
	File string `arg:"" optional:"" help:"The file; - is standard input. Default: .forge.yml, or else .forge.yaml."`

	Graph bool `help:"Draw what it runs: the jobs by what they need."`
}

// Run prints what is wrong with a .forge.yml, as Forge would, and fails where
// anything is.
func (c check) Run() error { return c.run(os.Stdin, os.Stdout) }

func (c check) run(in io.Reader, out io.Writer) error {
	name := cmp.Or(c.File, buildfile.Name)
	if c.File == "" {
		_, first := os.Stat(buildfile.Name)
		_, second := os.Stat(buildfile.OtherName)
		switch {
		case first == nil && second == nil:
			return errors.New("there are " + buildfile.Name + " and " + buildfile.OtherName + " in this folder: keep one of them")
		case second == nil:
			name = buildfile.OtherName
		}
	}
	if name == "-" {
		name = "standard input"
	} else {
		file, err := os.Open(name)
		if c.File == "" && errors.Is(err, fs.ErrNotExist) {
			return errors.New("there is no .forge.yml in this folder: name the file to be checked")
		}
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // only read from
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, buildfile.MaxSize+1))
	if err != nil {
		return err
	}
	config, problems := buildfile.Parse(text)
	switch {
	case len(problems) > 0:
	case c.Graph:
		return drawGraph(out, config)
	default:
		_, err = fmt.Fprintf(out, "%s: nothing is wrong\n", name)
		return err
	}
	if _, err := io.WriteString(out, buildfile.Format(name, problems)); err != nil {
		return err
	}
	return fmt.Errorf("%s cannot be built from", name)
}
