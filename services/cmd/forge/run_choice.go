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
		if !slices.ContainsFunc(whole.GetJobs(), func(job *configv1.Job) bool { return valueOf(job, key) == value && hasKey(job, key) }) {
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

// leave leaves of a file what is to be run. Nothing that deploys is in it, and nothing
// that runs at times.
func (c chosen) leave(config *configv1.BuildConfig) {
	config.DeployStaging, config.DeployProduction, config.Environments, config.Schedules = nil, nil, nil, nil
	for _, p := range []*configv1.Pipeline{
		config.GetExecute(), config.GetStaging(), config.GetPush().GetExecute(), config.GetRelease().GetExecute(),
		config.GetManual().GetExecute(), config.GetPullRequest().GetClosed(),
	} {
		if len(p.GetJobs()) > 0 {
			p.Jobs = c.jobs(p.GetJobs())
		}
	}
}

// jobs are those that are chosen, with what they need.
func (c chosen) jobs(all []*configv1.Job) []*configv1.Job {
	all = slices.DeleteFunc(slices.Clone(all), func(job *configv1.Job) bool { return !c.fits(job) })
	if c.Job == "" {
		return all
	}
	wanted := map[string]bool{} // by name: with all its cells
	var left func(names []string)
	left = func(names []string) {
		for _, job := range all {
			if slices.Contains(names, job.GetName()) && !wanted[job.GetName()] {
				wanted[job.GetName()] = true
				left(job.GetNeeds())
			}
		}
	}
	titled := func(job *configv1.Job) bool { return job.GetTitle() == c.Job && job.GetName() != c.Job }
	for _, job := range all {
		if job.GetName() == c.Job {
			left([]string{c.Job})
		} else if titled(job) {
			left(job.GetNeeds())
		}
	}
	return slices.DeleteFunc(all, func(job *configv1.Job) bool { return !wanted[job.GetName()] && !titled(job) })
}

// fits reports whether a cell has the values that are asked for, as far as it has their
// keys.
func (c chosen) fits(job *configv1.Job) bool {
	for _, pair := range c.Matrix {
		key, value, _ := strings.Cut(pair, "=")
		if hasKey(job, key) && valueOf(job, key) != value {
			return false
		}
	}
	return true
}

func hasKey(job *configv1.Job, key string) bool {
	return slices.ContainsFunc(job.GetMatrix(), func(v *configv1.MatrixValue) bool { return v.GetName() == key })
}

func valueOf(job *configv1.Job, key string) string {
	for _, v := range job.GetMatrix() {
		if v.GetName() == key {
			return v.GetValue()
		}
	}
	return ""
}
