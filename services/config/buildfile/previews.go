package buildfile

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// pullRequestHole stands for the number of the pull request in the name of a preview.
const pullRequestHole = "${pull_request}"

// previewPattern is the name of previews. No digit stands beside the number, so that
// two names are alike only for the same pull request.
var previewPattern = regexp.MustCompile(`^(?:[a-z0-9-]*[a-z-])?\$\{pull_request\}(?:[a-z-][a-z0-9-]*)?$`)

func previewKeys() []key[*destination] {
	return []key[*destination]{
		{name: "name", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Preview, d.preview, _ = f.text(path, n)
		}},
		{name: "labels", with: "name", read: func(f *file, path string, n *yaml.Node, d *destination) {
			d.Labels = f.labels(path, n)
		}},
		{name: "stop", with: "name", read: func(f *file, path string, n *yaml.Node, d *destination) {
			f.staging(path, n, made(&d.Stop), deployed)
		}},
	}
}

// preview checks an environment that each pull request has for itself.
func (f deploying) preview(d *destination) {
	const longest = "1234567890"
	if d.preview == nil {
		return
	}
	switch name := d.GetPreview(); {
	case d.GetName() == staging || d.GetName() == production:
		f.complainf(d.preview, "%s.name: this environment is called %s; a name, with %s in it, is for previews, which have a key of their own", d.path, d.GetName(), pullRequestHole)
	case !strings.Contains(name, pullRequestHole):
		f.complainf(d.preview, "%s.name: %q needs %s in it: each pull request has a preview of its own; an environment that all share is called as its key", d.path, clip(name), pullRequestHole)
	case !previewPattern.MatchString(name) || !environmentPattern.MatchString(strings.Replace(name, pullRequestHole, longest, 1)):
		f.complainf(d.preview, "%s.name: %q cannot be the name of previews: small letters, digits and -, with %s once and no digit beside it, 50 at most with a number of ten digits",
			d.path, clip(name), pullRequestHole)
	}
	for _, other := range []string{"branches", "tags", "after", "approval", "approvers"} {
		if at := d.given[other]; at != nil {
			f.complainf(at, "%s.%s means nothing beside a name: pull requests deploy to previews, and nothing else does", d.path, other)
		}
	}
}

// address checks where people see what was deployed.
func (f deploying) address(d *destination) {
	text := d.pipeline.GetUrl()
	if text == "" {
		return
	}
	filled := text
	if d.given["name"] != nil {
		filled = strings.ReplaceAll(text, pullRequestHole, "1")
	}
	switch {
	case strings.Contains(text, pullRequestHole) && filled == text:
		f.complainf(d.url, "%s.url: %s is known of previews alone, which have a name with it", d.path, pullRequestHole)
	case !isAddress(filled):
		f.complainf(d.url, "%s.url: %q is not an address: expected one such as https://example.com", d.path, clip(text))
	}
}

// apart checks that no preview has the name of another environment.
func (f deploying) apart(all []*destination) {
	for n, d := range all {
		before, after, isPreview := strings.Cut(d.GetPreview(), pullRequestHole)
		if !isPreview {
			continue
		}
		for m, other := range all {
			number, fits := strings.CutPrefix(other.GetName(), before)
			number, fitsToo := strings.CutSuffix(number, after)
			switch {
			case m == n:
			case m < n && other.GetPreview() == d.GetPreview():
				f.complainf(d.preview, "%s.name: %s has the same", d.path, other.path)
			case other.preview == nil && fits && fitsToo && number != "" && strings.Trim(number, "0123456789") == "":
				f.complainf(other.key, "%s is what %s calls the preview of pull request %s", other.path, d.path, number)
			}
		}
	}
}
