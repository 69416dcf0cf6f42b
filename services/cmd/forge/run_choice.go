package main

import (
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/nearest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// chosen says which jobs are run.
type chosen struct {
	Job    string   `arg:"" optional:"" help:"The job, by its name or its title, such as 'test (1.26)'; with the jobs that it needs. Default: all."`
	Matrix []string `sep:"none" placeholder:"KEY=VALUE" help:"Only the cells of a matrix that have this value; several times for several."`
}

// selection is what is run of a file.
type selection struct {
	chosen  *configv1.Pipeline
	secrets map[string]bool
}

// choose is what an action runs of a file. It leaves that in the file.
func (c chosen) choose(config *configv1.BuildConfig, action schedulerv1.Build_Action) (*selection, error) {
	whole := store.PipelineOf(action, config)
	if !trigger.Runs(whole) {
		return nil, fmt.Errorf(".forge.yml has nothing to run for %s", trigger.ActionName(action, ""))
	}
	var all []string
	for _, job := range whole.GetJobs() {
		all = append(all, job.GetName(), job.GetTitle())
	}
	if c.Job != "" && !slices.Contains(all, c.Job) {
		if len(all) == 0 {
			return nil, usagef(".forge.yml has no jobs there: leave the name out")
		}
		text := fmt.Sprintf(".forge.yml has no job %s for %s", c.Job, trigger.ActionName(action, ""))
		if near := nearest.Name(c.Job, all, 3); near != "" {
			text += ", did you mean " + near + "?"
		}
		return nil, usagef("%s", text)
	}
	for _, pair := range c.Matrix {
		key, value, given := strings.Cut(pair, "=")
		if !given || key == "" {
			return nil, usagef("--matrix %s: expected KEY=VALUE", pair)
		}
		if !slices.ContainsFunc(whole.GetJobs(), func(job *configv1.Job) bool { return trigger.HasValue(job, key, value) }) {
			return nil, usagef("--matrix %s: no job has a cell with that value", pair)
		}
	}
	c.leave(config)
	left := store.PipelineOf(action, config)
	if !trigger.Runs(left) {
		return nil, usagef("no cell of %s has %s", c.Job, strings.Join(c.Matrix, " and "))
	}
	return &selection{left, secretsOf(config, left)}, nil
}

// leave leaves of a file what is to be run.
func (c chosen) leave(config *configv1.BuildConfig) { c.choice().Leave(config) }

func (c chosen) choice() trigger.Choice { return trigger.Choice{Job: c.Job, Matrix: c.Matrix} }
