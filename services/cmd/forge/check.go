package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
)

type check struct {
	output
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
			return usagef("there are %s and %s in this folder: keep one of them", buildfile.Name, buildfile.OtherName)
		case second == nil:
			name = buildfile.OtherName
		}
	}
	if name == "-" {
		name = "standard input"
	} else {
		file, err := os.Open(name)
		if c.File == "" && errors.Is(err, fs.ErrNotExist) {
			return usagef("there is no .forge.yml in this folder: name the file to be checked")
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
	case c.json():
		if err := printJSON(out, checked(name, config, problems)); err != nil || len(problems) == 0 {
			return err
		}
		return fmt.Errorf("%s cannot be built from", name)
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

// checked is what ValidateBuildConfig answers.
func checked(name string, config *configv1.BuildConfig, problems []*buildfile.Problem) *configv1.ValidateBuildConfigResponse {
	if len(problems) == 0 {
		return &configv1.ValidateBuildConfigResponse{Outcome: &configv1.ValidateBuildConfigResponse_Config{Config: config}}
	}
	return &configv1.ValidateBuildConfigResponse{
		Outcome: &configv1.ValidateBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{Problems: problems}}, Text: buildfile.Format(name, problems),
	}
}
