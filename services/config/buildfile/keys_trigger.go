package buildfile

import (
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

func pullRequestKeys() []key[*configv1.BuildConfig_PullRequest] {
	return []key[*configv1.BuildConfig_PullRequest]{
		{name: "test", read: func(f *file, path string, n *yaml.Node, p *configv1.BuildConfig_PullRequest) {
			p.Test, _ = oneWord(f, path, n, testWords(), "what can be tested")
		}},
		{name: "branches", read: func(f *file, path string, n *yaml.Node, p *configv1.BuildConfig_PullRequest) {
			p.Branches = f.globs(path, n)
		}},
		{name: "labels", read: func(f *file, path string, n *yaml.Node, p *configv1.BuildConfig_PullRequest) {
			p.Labels = f.labels(path, n)
		}},
		{name: "drafts", read: func(f *file, path string, n *yaml.Node, p *configv1.BuildConfig_PullRequest) {
			drafts := f.truth(path, n)
			p.Drafts = &drafts
		}},
		{name: "closed", read: func(f *file, path string, n *yaml.Node, p *configv1.BuildConfig_PullRequest) {
			p.Closed = f.part(path, n, "the commands that a closed pull request runs", closed)
		}},
	}
}

func testWords() []word[configv1.BuildConfig_PullRequest_Test] {
	return []word[configv1.BuildConfig_PullRequest_Test]{
		{"head", configv1.BuildConfig_PullRequest_TEST_HEAD},
		{"merge", configv1.BuildConfig_PullRequest_TEST_MERGE},
	}
}

func releaseKeys() []key[*configv1.Release] {
	return append([]key[*configv1.Release]{
		{name: "tags", read: func(f *file, path string, n *yaml.Node, r *configv1.Release) {
			r.Tags = f.globs(path, n)
		}},
		{name: "prereleases", read: func(f *file, path string, n *yaml.Node, r *configv1.Release) {
			prereleases := f.truth(path, n)
			r.Prereleases = &prereleases
		}},
	}, lent(partKeys("the commands that a release runs", released), func(r *configv1.Release) *configv1.Pipeline { return made(&r.Execute) })...)
}

// lent are the keys of a part that is read into one of another's.
func lent[T, P any](keys []key[P], part func(T) P) []key[T] {
	all := make([]key[T], len(keys))
	for i, k := range keys {
		all[i] = key[T]{name: k.name, missing: k.missing, or: k.or, with: k.with, read: func(f *file, path string, n *yaml.Node, into T) {
			k.read(f, path, n, part(into))
		}}
	}
	return all
}

// part is a pipeline that is a mapping of its own.
func (f *file) part(path string, n *yaml.Node, what string, events []configv1.Condition_Event) *configv1.Pipeline {
	p := &configv1.Pipeline{}
	readMapping(f, path, n, p, partKeys(what, events))
	return p
}

func partKeys(what string, events []configv1.Condition_Event) []key[*configv1.Pipeline] {
	return []key[*configv1.Pipeline]{
		{name: "execute", or: "jobs", missing: what + ", or jobs in their place", read: func(f *file, path string, n *yaml.Node, p *configv1.Pipeline) {
			f.commandsOf(path, n, p)
		}},
		{name: "jobs", read: func(f *file, path string, n *yaml.Node, p *configv1.Pipeline) {
			f.jobs(path, n, p, events)
		}},
		{name: "fail_fast", with: "jobs", read: func(f *file, path string, n *yaml.Node, p *configv1.Pipeline) {
			p.FailFast = f.truth(path, n)
		}},
	}
}
