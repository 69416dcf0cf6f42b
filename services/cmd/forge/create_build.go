package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// where is a repository, and a branch or a tag of it.
type where struct {
	Repository string `arg:"" optional:"" placeholder:"OWNER/NAME" help:"The repository; or --repo."`
	Repo       string `aliases:"repository" placeholder:"OWNER/NAME" help:"The repository."`
	Ref        string `xor:"ref" placeholder:"REF" help:"The branch, or a tag as refs/tags/NAME. Default: the default branch."`
	Branch     string `xor:"ref" help:"The branch."`
}

func (w where) repository() (string, error) {
	if (w.Repository == "") == (w.Repo == "") {
		return "", usagef("name the repository once, as OWNER/NAME")
	}
	return cmp.Or(w.Repository, w.Repo), nil
}

// ref is the branch or the tag that is meant.
func (w where) ref() (branch, tag string) {
	if tag, isTag := strings.CutPrefix(w.Ref, "refs/tags/"); isTag {
		return "", tag
	}
	return cmp.Or(w.Branch, strings.TrimPrefix(w.Ref, "refs/heads/")), ""
}

type createBuild struct {
	query
	where
	SHA         commit   `name:"sha" help:"A commit that the branch holds, in full. Default: its newest."`
	Action      string   `enum:",test,staging,deploy_staging,deploy_production,push,manual" default:"" help:"What to run: test, staging, deploy_staging, deploy_production, push or manual. Default: manual with --input, else test."`
	Environment string   `placeholder:"NAME" help:"Deploy to this environment, in place of an action."`
	Input       []string `sep:"none" placeholder:"NAME=VALUE" help:"A value of an input that manual in .forge.yml has; several times for several. NAME alone reads the value from standard input, or asks for it: use it for secrets."`
}

// Run builds by hand.
func (c createBuild) Run() error {
	inputs, err := c.inputs(func(name string) (string, error) { return readSecret(os.Stdin, os.Stderr, name) })
	if err != nil {
		return err
	}
	repository, err := c.repository()
	if err != nil {
		return err
	}
	req := &schedulerv1.CreateBuildRequest{Repository: repository, Sha: string(c.SHA), Inputs: inputs, Environment: c.Environment}
	req.Branch, req.Tag = c.ref()
	if c.Action != "" {
		req.Action = schedulerv1.Build_Action(schedulerv1.Build_Action_value["ACTION_"+strings.ToUpper(c.Action)])
	}
	return oneBuild{query: c.query}.run(func(ctx context.Context, client schedulerv1.BuildServiceClient, _ string) (answer, error) {
		return client.CreateBuild(ctx, req)
	})
}

// inputs are those of the arguments; of a name alone the value is read.
func (c createBuild) inputs(read func(name string) (string, error)) (map[string]string, error) {
	all, alone := map[string]string{}, ""
	for _, argument := range c.Input {
		name, value, given := strings.Cut(argument, "=")
		if _, twice := all[name]; twice || name == "" {
			return nil, usagef("--input %s: expected NAME=VALUE, each name once", argument)
		}
		if !given {
			if alone != "" {
				return nil, usagef("--input %s: standard input is read for %s already: give one of them as NAME=VALUE", name, alone)
			}
			alone = name
			var err error
			if value, err = read(name); err != nil {
				return nil, fmt.Errorf("value of input %s: %w", name, err)
			}
		}
		all[name] = value
	}
	return all, nil
}

type listInputs struct {
	query
	where
}

// Run prints a line an input.
func (l listInputs) Run() error {
	repository, err := l.repository()
	if err != nil {
		return err
	}
	req := &schedulerv1.GetManualRequest{Repository: repository}
	req.Branch, req.Tag = l.ref()
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.GetManualResponse, error) {
		return schedulerv1.NewManualServiceClient(conn).GetManual(ctx, req)
	}, printInputs)
}

func printInputs(out io.Writer, manual *schedulerv1.GetManualResponse) {
	switch {
	case !manual.GetOffered():
		fmt.Fprintln(out, "nothing can be run by hand: .forge.yml there has no manual") //nolint:errcheck // out is memory
		return
	case len(manual.GetInputs()) == 0:
		fmt.Fprintln(out, "manual in .forge.yml there takes no inputs") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"INPUT", "VARIABLE", "VALUE", "DEFAULT", "WHAT"}}
	for _, i := range manual.GetInputs() {
		rows = append(rows, []string{i.GetName(), i.GetVariable(), expected(i), cmp.Or(i.GetDefault(), "-"), cmp.Or(i.GetDescription(), "-")})
	}
	printTable(out, rows)
}

// expected is what an input can be.
func expected(i *configv1.Input) string {
	value := "any"
	if len(i.GetOptions()) > 0 {
		value = strings.Join(i.GetOptions(), "|")
	}
	if i.GetSecret() {
		value += ", secret"
	}
	if i.GetRequired() {
		value += ", required"
	}
	return value
}

// inputValue is what was given, on one line.
func inputValue(i *schedulerv1.Input) string {
	if i.GetSecret() {
		return "(secret)"
	}
	value := i.GetValue()
	if strings.ContainsAny(value, "\n\r\t") {
		value = fmt.Sprintf("%q", value)
	}
	if i.GetClipped() {
		value += "…"
	}
	return value
}
