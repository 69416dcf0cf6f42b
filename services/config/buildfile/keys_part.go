package buildfile

import (
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func commandKeys() []key[*configv1.Command] {
	return []key[*configv1.Command]{
		{name: "name", read: func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.Name = f.commandName(path, n)
		}},
		{name: "run", or: "image", missing: "the command itself, or image in its place", read: func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.Run = f.commandText(path, n)
		}},
		{name: "image", read: func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.Image = imaging{f}.step(path, n)
		}},
		{name: "when", read: func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.When = f.when(path, n)
		}},
	}
}

func serviceKeys() []key[*configv1.Sidecar] {
	return []key[*configv1.Sidecar]{
		{name: "image", missing: "the container image of the service, such as postgres:16", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Image = f.image(path, n)
		}},
		{name: "environment", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Environment = f.serviceEnvironment(path, n)
		}},
		{name: "command", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Command = f.arguments(path, n)
		}},
		{name: "entrypoint", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Entrypoint = f.arguments(path, n)
		}},
		{name: "ready", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Ready = f.ready(path, n)
		}},
		{name: "privileged", read: func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Privileged = f.truth(path, n)
		}},
	}
}

func readyKeys() []key[*configv1.Ready] {
	return []key[*configv1.Ready]{
		{name: "run", read: func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Run = f.commandText(path, n)
		}},
		{name: "port", read: func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Port, _ = f.port(path, n)
		}},
		{name: "within", read: func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Within = f.patience(path, n)
		}},
	}
}

func pathsKeys() []key[*configv1.Paths] {
	return []key[*configv1.Paths]{
		{name: "include", read: func(f *file, path string, n *yaml.Node, p *configv1.Paths) {
			p.Include = f.globs(path, n)
		}},
		{name: "ignore", read: func(f *file, path string, n *yaml.Node, p *configv1.Paths) {
			p.Ignore = f.globs(path, n)
		}},
	}
}

func resourcesKeys() []key[*configv1.Resources] {
	return []key[*configv1.Resources]{
		{name: "cpus", read: func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Cpus = f.cpus(path, n)
		}},
		{name: "memory", read: func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Memory = f.memory(path, n)
		}},
		{name: "shm", read: func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Shm = f.memory(path, n)
		}},
	}
}

func retryKeys() []key[*configv1.Retry] {
	return []key[*configv1.Retry]{
		{name: "times", missing: "how many times more at most, 1 to 5", read: func(f *file, path string, n *yaml.Node, r *configv1.Retry) {
			r.Times = f.times(path, n)
		}},
		{name: "on", read: func(f *file, path string, n *yaml.Node, r *configv1.Retry) {
			f.retryOn(path, n, r)
		}},
	}
}

func sourceKeys() []key[*configv1.Source] {
	return []key[*configv1.Source]{
		{name: "history", read: func(f *file, path string, n *yaml.Node, s *configv1.Source) {
			s.History, s.FullHistory = f.history(path, n)
		}},
		{name: "submodules", read: func(f *file, path string, n *yaml.Node, s *configv1.Source) {
			s.Submodules = f.truth(path, n)
		}},
		{name: "lfs", read: func(f *file, path string, n *yaml.Node, s *configv1.Source) {
			s.Lfs = f.truth(path, n)
		}},
	}
}

func cacheKeys() []key[*configv1.Cache] {
	return []key[*configv1.Cache]{
		{name: "key", missing: "the text by which later builds find it, such as go-${hash:go.sum}", read: func(f *file, path string, n *yaml.Node, c *configv1.Cache) {
			c.Key = caching{f}.key(path, n)
		}},
		{name: "restore", read: func(f *file, path string, n *yaml.Node, c *configv1.Cache) {
			c.Restore = caching{f}.restore(path, n)
		}},
		{name: "paths", missing: "the files and folders that it keeps, such as node_modules", read: func(f *file, path string, n *yaml.Node, c *configv1.Cache) {
			c.Paths = caching{f}.paths(path, n)
		}},
		{name: "save", read: func(f *file, path string, n *yaml.Node, c *configv1.Cache) {
			c.SaveAlways, _ = oneWord(f, path, n, saveWords(), "a time to save a cache")
		}},
	}
}

func saveWords() []word[bool] {
	return []word[bool]{{"success", false}, {"always", true}}
}

func artifactKeys() []key[*configv1.Artifact] {
	return []key[*configv1.Artifact]{
		{name: "name", missing: "what people find it by, such as coverage", read: func(f *file, path string, n *yaml.Node, a *configv1.Artifact) {
			a.Name = keeping{f}.name(path, n)
		}},
		{name: "paths", missing: "patterns of the files that it keeps, such as dist/**", read: func(f *file, path string, n *yaml.Node, a *configv1.Artifact) {
			a.Paths = keeping{f}.paths(path, n)
		}},
		{name: "keep", read: func(f *file, path string, n *yaml.Node, a *configv1.Artifact) {
			a.Keep = keeping{f}.keep(path, n)
		}},
	}
}

func conditionKeys() []key[*condition] {
	return []key[*condition]{
		{name: "paths", read: func(f *file, path string, n *yaml.Node, c *condition) {
			c.Paths, c.paths = f.globs(path, n), n
		}},
		{name: "branches", read: func(f *file, path string, n *yaml.Node, c *condition) {
			c.Branches, c.branches = f.globs(path, n), n
		}},
		{name: "labels", read: func(f *file, path string, n *yaml.Node, c *condition) {
			c.Labels, c.labels = f.labels(path, n), n
		}},
		{name: "events", read: func(f *file, path string, n *yaml.Node, c *condition) {
			c.Events, c.events = words(f, path, n, eventWords(), "an event"), n
		}},
		{name: "on", read: func(f *file, path string, n *yaml.Node, c *condition) {
			c.On, c.on = words(f, path, n, onWords(), "what the needs come to"), n
		}},
	}
}
