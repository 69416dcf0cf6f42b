package buildfile

import (
	"slices"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func configKeys() []key[*configv1.BuildConfig] {
	return []key[*configv1.BuildConfig]{
		{"image", "the container image that the commands run in, such as golang:1.26", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Image = f.image(path, n)
		}},
		{"execute", "the commands that a pull request runs", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Execute = f.job(path, n)
		}},
		{"environment", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Environment = f.environment(path, n)
		}},
		{"ports", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Ports = f.ports(path, n)
		}},
		{"staging", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Staging = f.job(path, n)
		}},
		{"deploy", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			readMapping(f, path, n, c, deployKeys())
		}},
		{"push", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Push = f.push(path, n)
		}},
		{"services", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Services = f.services(path, n)
		}},
		{"secrets", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Secrets = f.secrets(path, n)
		}},
		{"paths", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Paths = &configv1.Paths{}
			readMapping(f, path, n, c.GetPaths(), pathsKeys())
		}},
		{"timeout", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Timeout = f.duration(path, n)
		}},
		{"resources", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Resources = &configv1.Resources{}
			readMapping(f, path, n, c.GetResources(), resourcesKeys())
		}},
		{"privileged", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Privileged = f.truth(path, n)
		}},
		{"volumes", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.Volumes = f.volumes(path, n)
		}},
	}
}

func deployKeys() []key[*configv1.BuildConfig] {
	return []key[*configv1.BuildConfig]{
		{"staging", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.DeployStaging = f.deploy(path, n)
		}},
		{"production", "", func(f *file, path string, n *yaml.Node, c *configv1.BuildConfig) {
			c.DeployProduction = f.deploy(path, n)
		}},
	}
}

func deployJobKeys() []key[*configv1.Pipeline] {
	return []key[*configv1.Pipeline]{
		{"run", "the commands that deploy", func(f *file, path string, n *yaml.Node, job *configv1.Pipeline) {
			job.Commands = f.job(path, n).GetCommands()
		}},
		{"url", "", func(f *file, path string, n *yaml.Node, job *configv1.Pipeline) {
			job.Url = f.url(path, n)
		}},
	}
}

func commandKeys() []key[*configv1.Command] {
	return []key[*configv1.Command]{
		{"name", "", func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.Name = f.commandName(path, n)
		}},
		{"run", "the command itself", func(f *file, path string, n *yaml.Node, c *configv1.Command) {
			c.Run = f.commandText(path, n)
		}},
	}
}

func pushKeys() []key[*configv1.Push] {
	return []key[*configv1.Push]{
		{"branches", "", func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			p.Branches = f.globs(path, n)
		}},
		{"tags", "", func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			p.Tags = f.globs(path, n)
		}},
		{"execute", "the commands that a push runs", func(f *file, path string, n *yaml.Node, p *configv1.Push) {
			p.Execute = f.job(path, n)
		}},
	}
}

func serviceKeys() []key[*configv1.Sidecar] {
	return []key[*configv1.Sidecar]{
		{"image", "the container image of the service, such as postgres:16", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Image = f.image(path, n)
		}},
		{"environment", "", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Environment = f.serviceEnvironment(path, n)
		}},
		{"command", "", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Command = f.arguments(path, n)
		}},
		{"entrypoint", "", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Entrypoint = f.arguments(path, n)
		}},
		{"ready", "", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Ready = f.ready(path, n)
		}},
		{"privileged", "", func(f *file, path string, n *yaml.Node, s *configv1.Sidecar) {
			s.Privileged = f.truth(path, n)
		}},
	}
}

func readyKeys() []key[*configv1.Ready] {
	return []key[*configv1.Ready]{
		{"run", "", func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Run = f.commandText(path, n)
		}},
		{"port", "", func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Port, _ = f.port(path, n)
		}},
		{"within", "", func(f *file, path string, n *yaml.Node, r *configv1.Ready) {
			r.Within = f.patience(path, n)
		}},
	}
}

func pathsKeys() []key[*configv1.Paths] {
	return []key[*configv1.Paths]{
		{"include", "", func(f *file, path string, n *yaml.Node, p *configv1.Paths) {
			p.Include = f.globs(path, n)
		}},
		{"ignore", "", func(f *file, path string, n *yaml.Node, p *configv1.Paths) {
			p.Ignore = f.globs(path, n)
		}},
	}
}

func resourcesKeys() []key[*configv1.Resources] {
	return []key[*configv1.Resources]{
		{"cpus", "", func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Cpus = f.cpus(path, n)
		}},
		{"memory", "", func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Memory = f.memory(path, n)
		}},
		{"shm", "", func(f *file, path string, n *yaml.Node, r *configv1.Resources) {
			r.Shm = f.memory(path, n)
		}},
	}
}

// Keys are all keys a file can have, those within others after a dot; * is a
// name of the writer's own.
func Keys() []string {
	return slices.Concat(
		names(configKeys()),
		within("execute[].", names(commandKeys())),
		within("deploy.", names(deployKeys())),
		within("deploy.*.", names(deployJobKeys())),
		within("push.", names(pushKeys())),
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
