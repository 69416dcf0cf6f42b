package buildfile

import (
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// What one kind of reports may have at most.
const (
	maxReportGlobs    = 20
	maxReportGlobSize = 1000 // bytes
)

func reportsKeys() []key[*configv1.Reports] {
	return []key[*configv1.Reports]{
		{name: "junit", read: func(f *file, path string, n *yaml.Node, r *configv1.Reports) {
			r.Junit = reporting{f}.globs(path, n)
		}},
		{name: "go", read: func(f *file, path string, n *yaml.Node, r *configv1.Reports) {
			r.Go = reporting{f}.globs(path, n)
		}},
		{name: "sarif", read: func(f *file, path string, n *yaml.Node, r *configv1.Reports) {
			r.Sarif = reporting{f}.globs(path, n)
		}},
	}
}

// reporting reads reports.
type reporting struct{ *file }

func (f reporting) all(at string, n *yaml.Node) *configv1.Reports {
	reports := &configv1.Reports{}
	readMapping(f.file, at, n, reports, reportsKeys())
	return reports
}

// globs are patterns of files within the workspace.
func (f reporting) globs(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	if len(items) > maxReportGlobs {
		f.complainf(f.place(n), "%s has more than %d patterns", at, maxReportGlobs)
		return nil
	}
	var globs []string
	for _, item := range items {
		text, item, ok := f.text(at, item)
		if !ok {
			continue
		}
		glob := path.Clean(text)
		switch {
		case strings.TrimSpace(text) == "" || !doublestar.ValidatePattern(glob):
			f.complainf(item, "%s: %q is not a pattern: expected one such as reports/*.xml or **/report.json", at, clip(text))
		case strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxReportGlobSize:
			f.complainf(item, "%s: %q is not a pattern of files: expected one line of 1,000 characters at most", at, clip(text))
		case path.IsAbs(glob) || slices.Contains(strings.Split(glob, "/"), ".."):
			f.complainf(item, "%s: %q is outside of the workspace: expected a path within it, such as reports/*.xml", at, clip(text))
		default:
			globs = append(globs, glob)
		}
	}
	return globs
}
