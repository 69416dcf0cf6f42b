package buildfile

import (
	"slices"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func configKeys() []key[*configv1.BuildConfig] {
	return []key[*configv1.BuildConfig]{
		{name: "image", missing: "the container image that the commands run in, such as golang:1.26", spared: jobsAlone, read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.image.give(path, n)
		}},
		{name: "platform", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.platform.give(path, n)
		}},
		{name: "execute", or: "jobs", missing: "the commands that a pull request runs, or jobs in their place", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			f.commandsOf(path, n, made(&c.Execute))
		}},
		{name: "jobs", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			f.jobs(path, n, made(&c.Execute), proposed)
		}},
		{name: "fail_fast", with: "jobs", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			made(&c.Execute).FailFast = f.truth(path, n)
		}},
		{name: "environment", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.environment.give(path, n)
		}},
		{name: "ports", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Ports = f.ports(path, n)
		}},
		{name: staging, read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			f.staging(path, n, made(&c.Staging), proposed)
		}},
		{name: "deploy", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			deploying{f}.all(path, n, c)
		}},
		{name: "push", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Push = f.push(path, n)
		}},
		{name: "release", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Release = &configv1.Release{}
			readMapping(f, path, n, c.GetRelease(), releaseKeys())
		}},
		{name: "services", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.services.give(path, n)
		}},
		{name: "secrets", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Secrets = f.secrets(path, n)
		}},
		{name: "paths", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Paths = &configv1.Paths{}
			readMapping(f, path, n, c.GetPaths(), pathsKeys())
		}},
		{name: "timeout", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.timeout.give(path, n)
		}},
		{name: "resources", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Resources = f.resources(path, n)
		}},
		{name: "working_directory", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.workingDirectory.give(path, n)
		}},
		{name: "shell", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Shell = f.shell(path, n)
		}},
		{name: "retry", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Retry = f.retry(path, n)
		}},
		{name: "keep", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Keep = f.keep(path, n)
		}},
		{name: "privileged", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Privileged = f.truth(path, n)
		}},
		{name: "volumes", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Volumes = f.volumes(path, n)
		}},
		{name: "source", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Source = f.source(path, n)
		}},
		{name: "cache", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.caches.give(path, n)
		}},
		{name: "artifacts", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.artifacts.give(path, n)
		}},
		{name: "reports", read: func(f *file, path string, n *yaml.Node, _ *configv1.BuildConfig) {
			f.defaults.reports.give(path, n)
		}},
		{name: "schedule", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Schedules = timing{f}.all(path, n)
		}},
		{name: "concurrency", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Concurrency = queueing{f}.concurrency(path, n)
		}},
		{name: "notify", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Notify = telling{f}.all(path, n)
		}},
		{name: "manual", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Manual = &configv1.Manual{}
			readMapping(f, path, n, c.GetManual(), manualKeys())
		}},
		{name: "pull_request", read: func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.PullRequest = &configv1.BuildConfig_PullRequest{}
			readMapping(f, path, n, c.GetPullRequest(), pullRequestKeys())
		}},
	}
}

// jobsAlone reports whether no pipeline has commands without jobs, so that each job
// can have an image of its own.
func jobsAlone(f *file, _ *configv1.BuildConfig) bool {
	return len(f.pipelines) > 0 && !slices.ContainsFunc(f.pipelines, func(p *pipeline) bool { return p.events == nil })
}

// made is a pipeline, which may have begun with another of its keys.
func made(p **configv1.Pipeline) *configv1.Pipeline {
	if *p == nil {
		*p = &configv1.Pipeline{}
	}
	return *p
}

func stagingKeys() []key[*staged] {
	return []key[*staged]{
		{name: "name", with: "run", read: func(f *file, path string, n *yaml.Node, s *staged) {
			s.command.Name = f.commandName(path, n)
		}},
		{name: "run", or: "jobs", missing: "the command itself, or jobs in its place", read: func(f *file, path string, n *yaml.Node, s *staged) {
			s.command.Run = f.commandText(path, n)
		}},
		{name: "when", with: "run", read: func(f *file, path string, n *yaml.Node, s *staged) {
			s.command.When = f.when(path, n)
		}},
		{name: "jobs", read: func(f *file, path string, n *yaml.Node, s *staged) {
			f.jobs(path, n, s.pipeline, s.events)
		}},
		{name: "fail_fast", with: "jobs", read: func(f *file, path string, n *yaml.Node, s *staged) {
			s.pipeline.FailFast = f.truth(path, n)
		}},
	}
}

func pushKeys() []key[*configv1.Push] {
	return []key[*configv1.Push]{
		{name: "branches", read: func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			p.Branches = f.globs(path, n)
		}},
		{name: "tags", read: func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			p.Tags = f.globs(path, n)
		}},
		{name: "execute", or: "jobs", missing: "the commands that a push runs, or jobs in their place", read: func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			f.commandsOf(path, n, made(&p.Execute))
		}},
		{name: "jobs", read: func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			f.jobs(path, n, made(&p.Execute), pushed)
		}},
		{name: "fail_fast", with: "jobs", read: func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			made(&p.Execute).FailFast = f.truth(path, n)
		}},
	}
}

// Keys are all keys a file can have, those within others after a dot; * is a
// name of the writer's own.
func Keys() []string {
	return slices.Concat(
		names(configKeys()),
		within("execute[].", names(commandKeys())),
		within("execute[].image.", names(imageKeys())),
		within("jobs.*.", names(jobKeys())),
		within("jobs.*.matrix.", []string{includeKey, excludeKey}),
		within("jobs.*.matrix.include[].", []string{mayFailKey}),
		within("jobs.*.if.", names(conditionKeys())),
		within("retry.", names(retryKeys())),
		within("pull_request.", names(pullRequestKeys())),
		within("pull_request.closed.", names(partKeys("", closed))),
		within("source.", names(sourceKeys())),
		within("cache[].", names(cacheKeys())),
		within("artifacts[].", names(artifactKeys())),
		within("reports.", names(reportsKeys())),
		within("staging.", []string{"jobs", "fail_fast"}),
		within("deploy.", deployKeys()),
		within("deploy.*.", names(deployJobKeys())),
		within("push.", names(pushKeys())),
		within("release.", names(releaseKeys())),
		within("schedule[].", names(scheduleKeys())),
		within("concurrency.", names(concurrencyKeys())),
		within("notify[].", names(notifyKeys())),
		within("manual.", names(manualKeys())),
		within("manual.inputs.*.", names(inputKeys())),
		within("services.*.", names(serviceKeys())),
		within("services.*.ready.", names(readyKeys())),
		within("paths.", names(pathsKeys())),
		within("resources.", names(resourcesKeys())),
	)
}

func within(path string, keys []string) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = path + k
	}
	return all
}
