package buildfile

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxArtifacts = 20
	maxGlobs     = 50 // of one artifact
	day          = 24 * time.Hour
	maxKeep      = 366 * day
)

var (
	artifactPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)
	daysPattern     = regexp.MustCompile(`^([0-9]{1,4})d([0-9].*)?$`)
	// What has a meaning in a pattern, as https://github.com/bmatcuk/doublestar has it.
	metaPattern = regexp.MustCompile(`[*?\[\]{},\\]`)
)

// keeping reads artifacts.
type keeping struct{ *file }

// all are patterns, of which all make the artifact that is named as the job,
// and artifacts with a name of their own; one, a list, or an empty list, which stands
// for none.
func (f keeping) all(at string, n *yaml.Node) []*configv1.Artifact {
	if f.none(n) {
		return nil
	}
	var all []*configv1.Artifact
	var own *configv1.Artifact
	for _, item := range f.items(at, n) {
		item = f.resolve(item)
		if item == nil {
			continue
		}
		if item.Kind != yaml.MappingNode {
			if own == nil {
				own = &configv1.Artifact{}
				all = append(all, own)
			}
			own.Paths = append(own.Paths, f.glob(at, item))
			if len(own.GetPaths()) == maxGlobs+1 {
				f.complainf(item, "%s has more than %d patterns: name the folders that hold the files", at, maxGlobs)
				return nil
			}
		} else {
			a := &configv1.Artifact{}
			readMapping(f.file, at, item, a, artifactKeys())
			if a.GetName() != "" && slices.ContainsFunc(all, func(other *configv1.Artifact) bool { return other.GetName() == a.GetName() }) {
				f.complainf(item, "%s: two artifacts are both called %q: give one another name", at, clip(a.GetName()))
			}
			all = append(all, a)
		}
		if len(all) == maxArtifacts+1 {
			f.complainf(item, "%s has more than %d artifacts", at, maxArtifacts)
			return nil
		}
	}
	return all
}

func (f keeping) name(at string, n *yaml.Node) string {
	name, n, ok := f.filledText(at, n, f.ofCell)
	if ok && !artifactPattern.MatchString(name) {
		f.complainf(n, "%s: %q cannot be the name of an artifact: letters, digits, and . _ -, no . or - first, 100 at most", at, clip(name))
	}
	return name
}

func (f keeping) paths(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	if len(items) > maxGlobs {
		f.complainf(f.place(n), "%s has more than %d patterns: name the folders that hold the files", at, maxGlobs)
		return nil
	}
	var all []string
	for _, item := range items {
		all = append(all, f.glob(at, item))
	}
	return all
}

// glob is a pattern of files in the workspace.
func (f keeping) glob(at string, n *yaml.Node) string {
	text, n, ok := f.filledText(at, n, f.literally)
	if !ok {
		return ""
	}
	glob := path.Clean(text)
	why := ""
	switch {
	case strings.TrimSpace(text) == "":
		why = "it is empty: expected a pattern such as dist/**"
	case strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxPath:
		why = "expected one line of 1,000 bytes at most"
	case path.IsAbs(glob) || strings.HasPrefix(glob, "~") || slices.Contains(parts(text), ".."):
		why = "an artifact is of files in the workspace: have a command put them there, and write the path within it"
	case strings.HasPrefix(text, "!"):
		why = "a pattern cannot take away what others name: write those that are to be kept"
	case glob == ".":
		why = "write ** for all of the workspace"
	case slices.ContainsFunc(parts(glob), isGitFolder):
		why = "what git keeps in .git is never part of an artifact"
	case !doublestar.ValidatePattern(glob):
		why = "this is not a pattern: expected one such as dist/** or *.log"
	}
	if why != "" {
		f.complainf(n, "%s: %q cannot be kept: %s", at, clip(text), why)
	}
	return glob
}

// literally is what a cell has under a name, as a pattern that matches just that.
func (f keeping) literally(name string) (value, problem string) {
	value, problem = f.ofCell(name)
	return metaPattern.ReplaceAllString(value, `\$0`), problem
}

// parts are the names that a pattern consists of, each alternative by itself.
func parts(glob string) []string {
	return strings.FieldsFunc(glob, func(r rune) bool { return strings.ContainsRune("/{,}", r) })
}

// keep is a duration that can begin with days.
func (f keeping) keep(at string, n *yaml.Node) *durationpb.Duration {
	text, n, ok := f.bare(at, n)
	if !ok {
		return nil
	}
	var days time.Duration
	rest := text
	if m := daysPattern.FindStringSubmatch(text); m != nil {
		number, _ := strconv.Atoi(m[1]) // four digits
		days, rest = time.Duration(number)*day, m[2]
	}
	var more time.Duration
	var err error
	if rest != "" || days == 0 {
		more, err = time.ParseDuration(rest)
	}
	if err != nil || more > maxKeep || days+more < time.Hour || days+more > maxKeep {
		f.complainf(n, "%s: %q is not how long an artifact can be kept: expected 14d, 36h or the like, from 1h to 366d", at, clip(text))
		return nil
	}
	return durationpb.New(days + more)
}

// withoutJobs is what the artifact without a name is called where there are no jobs.
const withoutJobs = "files"

// tellArtifactsApart complains of an artifact whose name is that of the job, where
// the job has patterns that go by it.
func (d *draft) tellArtifactsApart(f *file, p *configv1.Pipeline) {
	n := d.own.artifacts.n
	if n == nil {
		n = f.defaults.artifacts.n
	}
	for _, job := range p.GetJobs()[len(p.GetJobs())-len(d.cells):] {
		if alikeCalled(job.GetArtifacts(), d.name) {
			f.complainf(f.place(n), "%s.artifacts: the patterns without a name are the artifact %q, as the job is called, and another has that name: give it a different one", d.path, clip(d.name))
			return
		}
	}
}

// alikeCalled reports whether there is an artifact without a name, and another that
// has the name which it goes by.
func alikeCalled(artifacts []*configv1.Artifact, name string) bool {
	names := map[string]bool{}
	for _, a := range artifacts {
		names[a.GetName()] = true
	}
	return names[""] && names[name]
}
