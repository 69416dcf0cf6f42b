package trigger

import (
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// Choice is what of a file somebody wants run of their working tree: all, as the zero
// value says, a job by its name or its title, with those that it needs, or cells of a
// matrix that have certain values, each KEY=VALUE.
type Choice struct {
	Job    string
	Matrix []string
}

// Leave leaves of a file what is to be run. Nothing that deploys is in it, and nothing
// that runs at times.
func (c Choice) Leave(config *configv1.BuildConfig) {
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
func (c Choice) jobs(all []*configv1.Job) []*configv1.Job {
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
func (c Choice) fits(job *configv1.Job) bool {
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

// HasValue reports whether a job is a cell with that value.
func HasValue(job *configv1.Job, key, value string) bool {
	return hasKey(job, key) && valueOf(job, key) == value
}
