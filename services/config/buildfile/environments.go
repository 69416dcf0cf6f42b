package buildfile

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxEnvironments = 20
	maxApprovers    = 50
)

// Merges deploy to these where the file says nothing else.
const (
	staging    = "staging"
	production = "production"
)

var (
	environmentPattern = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?$`)
	loginPattern       = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?$`)
	teamPattern        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`) // as in addresses
)

// uses are words of forge secrets set --for, which takes names of environments, too.
var uses = []string{"pull-requests", "pushes", "tags", "deploys"}

// destination is one environment while the file is read.
type destination struct {
	*configv1.Destination
	pipeline *configv1.Pipeline
	path     string
	key      *yaml.Node
	after    *yaml.Node // where the environment before it is named
	preview  *yaml.Node // where a preview is named
	url      *yaml.Node
	given    given
}

// deploying reads environments.
type deploying struct{ *file }

func (f deploying) all(path string, n *yaml.Node, c *configv1.BuildConfig) {
	entries, ok := f.entries(path, n)
	if !ok {
		return
	}
	var all []*destination
	for i, e := range entries {
		if i == maxEnvironments {
			f.complainf(e.key, "%s has more than %d environments", path, maxEnvironments)
			return
		}
		d := &destination{Destination: &configv1.Destination{Name: e.name}, pipeline: &configv1.Pipeline{}, path: e.path, key: e.key}
		all = append(all, d)
		f.read(d, e.value)
		switch e.name {
		case staging:
			c.DeployStaging = d.pipeline
		case production:
			c.DeployProduction = d.pipeline
		default:
			d.Execute = d.pipeline
		}
		if !d.plain() {
			c.Environments = append(c.Environments, d.Destination)
		}
	}
	f.order(all)
	f.apart(all)
}

// plain reports whether the file says of staging or production no more than what runs.
func (d *destination) plain() bool {
	return d.Execute == nil && len(d.GetBranches())+len(d.GetTags())+len(d.GetApprovers()) == 0 && d.GetAfter() == "" && !d.GetApproval()
}

func (f deploying) read(d *destination, n *yaml.Node) {
	standard := d.GetName() == staging || d.GetName() == production
	switch {
	case slices.Contains(uses, d.GetName()):
		f.complainf(d.key, "%s cannot be the name of an environment: forge secrets set --for has another meaning for it", d.path)
	case !environmentPattern.MatchString(d.GetName()):
		f.complainf(d.key, "%s cannot be the name of an environment: small letters, digits and -, a letter or digit first and last, 50 at most", d.path)
	}
	before := len(f.problems)
	if n = f.resolve(n); n == nil {
		return
	}
	if n.Kind == yaml.MappingNode {
		d.given = readMapping(f.file, d.path, n, d, deployJobKeys())
		f.address(d)
	} else {
		f.commandsOf(d.path, n, d.pipeline)
	}
	if d.given["approvers"] != nil && !d.GetApproval() {
		f.complainf(d.given["approvers"], "%s.approvers means nothing without approval: true", d.path)
	}
	if d.given["name"] != nil {
		f.preview(d)
		return
	}
	if len(f.problems) > before || standard || len(d.GetBranches())+len(d.GetTags()) > 0 || d.GetAfter() != "" {
		return
	}
	if meant := f.guess(d.GetName(), deployKeys()); meant != "" {
		f.complainf(d.key, "%s: did you mean %q? Nothing ever deploys to an environment of another name without branches, tags or after", d.path, meant)
		return
	}
	f.complainf(d.key, "%s: nothing ever deploys there: give it branches, tags or after; or a name with ${pull_request} in it, for previews", d.path)
}

// order checks what environments come after.
func (f deploying) order(all []*destination) {
	byName := map[string]*destination{}
	var names []string
	for _, d := range all {
		byName[d.GetName()] = d
		names = append(names, d.GetName())
	}
	for _, d := range all {
		switch {
		case d.after == nil || d.GetAfter() == "":
		case d.GetAfter() == d.GetName():
			f.complainf(d.after, "%s.after: an environment cannot come after itself", d.path)
			return
		case byName[d.GetAfter()] != nil && byName[d.GetAfter()].preview != nil:
			f.complainf(d.after, "%s.after: %s is the preview of a pull request, and nothing comes after it", d.path, clip(d.GetAfter()))
			return
		case byName[d.GetAfter()] == nil:
			others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == d.GetName() })
			f.complainf(d.after, "%s.after: there is no environment %q in deploy%s", d.path, clip(d.GetAfter()),
				strings.Replace(f.didYouMean(d.GetAfter(), others), "it has", "the others are", 1))
			return
		}
	}
	for _, d := range all {
		way := []string{d.GetName()}
		for next := byName[d.GetAfter()]; next != nil; next = byName[next.GetAfter()] {
			way = append(way, next.GetName())
			if next == d {
				f.complainf(d.after, "%s.after: nothing could ever be deployed: %s", d.path, strings.Join(way, " comes after "))
				return
			}
			if len(way) > len(all) { // a round that d is not in; the first of those who are says so
				break
			}
		}
	}
}

func deployJobKeys() []key[*destination] {
	return append([]key[*destination]{
		{name: "run", or: "jobs", missing: "the commands that deploy, or jobs in their place", read: func(f *file, path string, n *yaml.Node, d *destination) {
			f.commandsOf(path, n, d.pipeline)
		}},
		{name: "jobs", read: func(f *file, path string, n *yaml.Node, d *destination) {
			f.jobs(path, n, d.pipeline, deployed)
		}},
		{name: "fail_fast", with: "jobs", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.pipeline.FailFast = f.truth(path, n)
		}},
		{name: "url", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.pipeline.Url, d.url, _ = f.text(path, n) // what it may hold, its name says
		}},
	}, append(gateKeys(), previewKeys()...)...)
}

// gateKeys say when an environment is deployed to, and who has a say in it.
func gateKeys() []key[*destination] {
	return []key[*destination]{
		{name: "branches", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Branches = f.globs(path, n)
		}},
		{name: "tags", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Tags = f.globs(path, n)
		}},
		{name: "after", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.After, d.after, _ = f.text(path, n)
		}},
		{name: "approval", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Approval = f.truth(path, n)
		}},
		{name: "approvers", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Approvers = f.approvers(path, n)
		}},
	}
}

// approvers are people and teams of GitHub. Its names are the same in capitals.
func (f *file) approvers(path string, n *yaml.Node) []string {
	items := f.items(path, n)
	if len(items) > maxApprovers {
		f.complainf(f.place(items[maxApprovers]), "%s names more than %d people and teams", path, maxApprovers)
		return nil
	}
	var all []string
	for _, item := range items {
		named, item, ok := f.text(path, item)
		org, team, isTeam := strings.Cut(named, "/")
		switch small := strings.ToLower(named); {
		case !ok:
		case isTeam && (!loginPattern.MatchString(org) || !teamPattern.MatchString(team)):
			f.complainf(item, "%s: %q is not a team of GitHub: write org/team, by its name in the address of its page", path, clip(named))
		case !isTeam && !loginPattern.MatchString(named):
			f.complainf(item, "%s: %q is not a login of GitHub", path, clip(named))
		case slices.Contains(all, small):
			f.complainf(item, "%s: %q is named twice", path, clip(named))
		default:
			all = append(all, small)
		}
	}
	return all
}

// deployKeys are those environments that have a meaning of their own.
func deployKeys() []string { return []string{staging, production} }
