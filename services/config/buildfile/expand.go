package buildfile

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// finish reads what needs the whole file to be known: the values that a matrix may
// fill in, and what each job takes from the file.
func (f *file) finish(config *configv1.BuildConfig, all given) {
	if all == nil {
		return
	}
	var jobs bool
	for _, p := range f.pipelines {
		jobs = jobs || p.drafts != nil
	}
	f.defaults.takeFor(f, config, jobs)
	missing := all["image"] == nil && jobsAlone(f, config)
	for _, p := range f.pipelines {
		imaging{f}.unused(p.into.GetCommands())
		imaging{f}.check(p.into.GetCommands(), config.GetSecrets())
		for _, d := range p.drafts {
			if len(f.problems) >= enough {
				return
			}
			d.possible(f, p)
			if missing && d.given != nil && d.given["image"] == nil {
				f.complainf(d.key, "%s.image is required: the container image that the commands run in, here or for all jobs at the top of the file", d.path)
			}
			if !d.addTo(p.into, f, config) {
				return
			}
		}
	}
	if len(f.problems) == 0 {
		f.defaults.image.unused(f)
		f.defaults.platform.unused(f)
		f.defaults.services.unused(f)
		f.defaults.timeout.unused(f)
		f.defaults.workingDirectory.unused(f)
		f.defaults.caches.unused(f)
		f.defaults.artifacts.unused(f)
		f.defaults.reports.unused(f)
	}
}

// addTo adds each cell of a job to a pipeline, as long as what all jobs hold is
// within bounds.
func (d *draft) addTo(p *configv1.Pipeline, f *file, config *configv1.BuildConfig) bool {
	d.inherit(config)
	imaging{f}.check(d.job.GetCommands(), d.job.GetSecrets())
	size := proto.Size(d.job)
	for _, c := range d.cells {
		job := d.expand(f, c)
		if !f.affords(&f.grown, size+weight(job), d.key) {
			return false
		}
		p.Jobs = append(p.Jobs, job)
	}
	d.tellArtifactsApart(f, p)
	return true
}

// takeFor reads the file's own values for what has commands in place of jobs.
// Where there is nothing of the kind, a value that a matrix fills in has no meaning
// but in the jobs.
func (d *fields) takeFor(f *file, config *configv1.BuildConfig, jobs bool) {
	var c *cell
	if jobs {
		c = &cell{}
		for _, p := range f.pipelines {
			if p.drafts == nil {
				c.title = p.path
				break
			}
		}
	}
	commands := !jobs || c.title != ""
	wanted := func(n *yaml.Node) bool { return n != nil && (commands || !f.hasHole(n)) }
	if wanted(d.image.n) {
		config.Image = d.image.in(f, c, f.image)
	}
	if wanted(d.platform.n) {
		config.Platform = d.platform.in(f, c, f.platform)
	}
	if wanted(d.environment.n) {
		config.Environment = d.environment.in(f, c, f.environment)
	}
	if wanted(d.services.n) {
		config.Services = d.services.in(f, c, f.services)
	}
	if wanted(d.timeout.n) {
		config.Timeout = d.timeout.in(f, c, f.duration)
	}
	if wanted(d.workingDirectory.n) {
		config.WorkingDirectory = d.workingDirectory.in(f, c, f.workingDirectory)
	}
	if wanted(d.caches.n) {
		config.Caches = d.caches.in(f, c, caching{f}.all)
	}
	if wanted(d.artifacts.n) {
		config.Artifacts = d.artifacts.in(f, c, keeping{f}.all)
		if commands && alikeCalled(config.GetArtifacts(), withoutJobs) {
			f.complainf(f.place(d.artifacts.n), "%s: the patterns without a name are the artifact %q, and another has that name: give it a different one", d.artifacts.path, withoutJobs)
		}
	}
	if wanted(d.reports.n) {
		config.Reports = d.reports.in(f, c, reporting{f}.all)
	}
}

// expand is a job as one of its cells has it.
func (d *draft) expand(f *file, c *cell) *configv1.Job {
	job := &configv1.Job{
		Name: d.name, Matrix: c.values, Title: c.title, Needs: d.job.GetNeeds(), Condition: d.job.GetCondition(), MayFail: d.job.GetMayFail(),
		Retry: d.job.GetRetry(), Commands: d.job.GetCommands(), Secrets: d.job.GetSecrets(), Resources: d.job.GetResources(), Ports: d.job.GetPorts(),
		Privileged: d.job.GetPrivileged(), Volumes: d.job.GetVolumes(), Shell: d.job.GetShell(), Outputs: d.job.GetOutputs(),
		Source: d.job.GetSource(), Keep: d.job.GetKeep(),
	}
	if c.mayFail != nil {
		job.MayFail = *c.mayFail
	}
	job.Image = taken(f, c, &d.own.image, &f.defaults.image, f.image)
	job.Platform = taken(f, c, &d.own.platform, &f.defaults.platform, f.platform)
	job.Services = taken(f, c, &d.own.services, &f.defaults.services, f.services)
	job.Timeout = taken[*durationpb.Duration](f, c, &d.own.timeout, &f.defaults.timeout, f.duration)
	job.WorkingDirectory = taken(f, c, &d.own.workingDirectory, &f.defaults.workingDirectory, f.workingDirectory)
	job.Caches = taken(f, c, &d.own.caches, &f.defaults.caches, caching{f}.all)
	job.Artifacts = taken(f, c, &d.own.artifacts, &f.defaults.artifacts, keeping{f}.all)
	job.Reports = taken[*configv1.Reports](f, c, &d.own.reports, &f.defaults.reports, reporting{f}.all)
	job.Environment = merged(c, f.defaults.environment.in(f, c, f.environment), d.own.environment.in(f, c, f.environment))
	return job
}

// taken is the job's own value, or else the file's.
func taken[T any](f *file, c *cell, own, file *field[T], read func(path string, n *yaml.Node) T) T {
	if own.n != nil {
		return own.in(f, c, read)
	}
	return file.in(f, c, read)
}

// merged are the variables of a job: the cell's win over its own, and these over
// the file's.
func merged(c *cell, file, own map[string]string) map[string]string {
	switch {
	case len(c.values) == 0 && len(own) == 0:
		return file
	case len(c.values) == 0 && len(file) == 0:
		return own
	}
	all := make(map[string]string, len(file)+len(own)+len(c.values))
	maps.Copy(all, file)
	maps.Copy(all, own)
	for _, v := range c.values {
		all[matrixVariable(v.GetName())] = v.GetValue()
	}
	return all
}

// perField is what the wire takes for a field besides its text, about.
const perField = 4

// weight is about how many bytes a cell has of its own on the wire.
func weight(job *configv1.Job) int {
	size := len(job.GetTitle()) + len(job.GetImage()) + len(job.GetPlatform()) + len(job.GetWorkingDirectory()) + weightOf(job.GetEnvironment())
	for _, v := range job.GetMatrix() {
		size += perField + len(v.GetName()) + len(v.GetValue())
	}
	for _, glob := range slices.Concat(job.GetReports().GetJunit(), job.GetReports().GetGo(), job.GetReports().GetSarif()) {
		size += perField + len(glob)
	}
	for name, s := range job.GetServices() {
		size += perField + len(name) + len(s.GetImage()) + len(s.GetReady().GetRun()) + weightOf(s.GetEnvironment())
		for _, argument := range slices.Concat(s.GetCommand(), s.GetEntrypoint()) {
			size += perField + len(argument)
		}
	}
	for _, cache := range job.GetCaches() {
		size += proto.Size(cache)
	}
	for _, artifact := range job.GetArtifacts() {
		size += proto.Size(artifact)
	}
	return size
}

func weightOf(environment map[string]string) int {
	size := 0
	for name, value := range environment {
		size += perField + len(name) + len(value)
	}
	return size
}
