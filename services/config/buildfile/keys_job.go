package buildfile

import (
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func jobKeys() []key[*draft] {
	return []key[*draft]{
		{name: "image", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.image.give(path, n)
		}},
		{name: "platform", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.platform.give(path, n)
		}},
		{name: "execute", missing: "the commands of the job", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Commands = f.commands(path, n)
		}},
		{name: "matrix", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.cells, d.matrix = readMatrix(f, path, n), f.place(n)
		}},
		{name: "needs", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.needs = f.needs(path, n)
		}},
		{name: "if", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.condition = f.condition(path, n)
		}},
		{name: "environment", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.environment.give(path, n)
		}},
		{name: "services", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.services.give(path, n)
		}},
		{name: "secrets", read: func(f *file, path string, n *yaml.Node, d *draft) {
			if !f.none(n) {
				d.job.Secrets = f.secrets(path, n)
			}
		}},
		{name: "retry", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Retry = f.retry(path, n)
		}},
		{name: "keep", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Keep = f.keep(path, n)
		}},
		{name: "may_fail", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.MayFail = f.truth(path, n)
		}},
		{name: "timeout", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.timeout.give(path, n)
		}},
		{name: "resources", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Resources = f.resources(path, n)
		}},
		{name: "working_directory", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.workingDirectory.give(path, n)
		}},
		{name: "shell", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Shell = f.shell(path, n)
		}},
		{name: "ports", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Ports = f.ports(path, n)
		}},
		{name: "outputs", read: func(f *file, path string, n *yaml.Node, d *draft) {
			if !f.none(n) {
				d.job.Outputs = f.outputs(path, n)
			}
		}},
		{name: "privileged", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Privileged = f.truth(path, n)
		}},
		{name: "volumes", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Volumes = f.volumes(path, n)
		}},
		{name: "source", read: func(f *file, path string, n *yaml.Node, d *draft) {
			d.job.Source = f.source(path, n)
		}},
		{name: "cache", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.caches.give(path, n)
		}},
		{name: "artifacts", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.artifacts.give(path, n)
		}},
		{name: "reports", read: func(_ *file, path string, n *yaml.Node, d *draft) {
			d.own.reports.give(path, n)
		}},
		{name: "schedule"},
		{name: "concurrency"},
		{name: "manual"},
	}
}

// inherit gives a job what it leaves out and no matrix fills in.
func (d *draft) inherit(config *configv1.BuildConfig) {
	for name, take := range map[string]func(){
		"secrets":    func() { d.job.Secrets = config.GetSecrets() },
		"retry":      func() { d.job.Retry = config.GetRetry() },
		"keep":       func() { d.job.Keep = config.GetKeep() },
		"source":     func() { d.job.Source = config.GetSource() },
		"resources":  func() { d.job.Resources = config.GetResources() },
		"shell":      func() { d.job.Shell = config.GetShell() },
		"ports":      func() { d.job.Ports = config.GetPorts() },
		"privileged": func() { d.job.Privileged = config.GetPrivileged() },
		"volumes":    func() { d.job.Volumes = config.GetVolumes() },
	} {
		if d.given[name] == nil {
			take()
		}
	}
}
