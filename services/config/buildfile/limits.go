package buildfile

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxTimes    = 5
	maxExitCode = 255
	// lostWord is what retry calls a container that was lost.
	lostWord = "lost"
	// fullWord and noneWord are what history may be besides a number.
	fullWord, noneWord = "full", "none"
	maxHistory         = 1_000_000
)

func (f *file) resources(at string, n *yaml.Node) *configv1.Resources {
	resources := &configv1.Resources{}
	readMapping(f, at, n, resources, resourcesKeys())
	return resources
}

// retry is how many times, or says more.
func (f *file) retry(at string, n *yaml.Node) *configv1.Retry {
	retry := &configv1.Retry{}
	n = f.resolve(n)
	switch {
	case n == nil:
		return retry
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		retry.Times = f.times(at, n)
	default:
		readMapping(f, at, n, retry, retryKeys())
	}
	if !retry.GetLost() && len(retry.GetExitCodes()) == 0 {
		retry.Lost, retry.AnyExitCode = true, true
	}
	return retry
}

func (r *reader) times(at string, n *yaml.Node) int32 {
	times, _ := r.number(at, n, maxTimes, "a number of times")
	return times
}

func (r *reader) number(at string, n *yaml.Node, most int, what string) (int32, bool) {
	text, n, ok := r.bare(at, n)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 || number > uint64(most) { //nolint:gosec // positive
		r.complainf(n, "%s: %q is not %s: expected 1 to %d", at, clip(text), what, most)
		return 0, false
	}
	return int32(number), true
}

func (r *reader) retryOn(at string, n *yaml.Node, into *configv1.Retry) {
	for _, item := range r.items(at, n) {
		if resolved := r.resolve(item); resolved != nil && resolved.Value == lostWord {
			into.Lost = true
			continue
		}
		code, ok := r.number(at, item, maxExitCode, "lost, nor an exit code of a command")
		if ok && !slices.Contains(into.GetExitCodes(), code) {
			into.ExitCodes = append(into.ExitCodes, code)
		}
	}
}

func (f *file) source(at string, n *yaml.Node) *configv1.Source {
	source := &configv1.Source{}
	readMapping(f, at, n, source, sourceKeys())
	return source
}

// history is how many commits, or all of them.
func (r *reader) history(at string, n *yaml.Node) (commits int32, full bool) {
	text, n, ok := r.bare(at, n)
	switch {
	case !ok || text == noneWord:
		return 0, false
	case text == fullWord:
		return 0, true
	}
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 0 || number > maxHistory {
		r.complainf(n, "%s: %q is not a history: expected how many commits, 1 to %d, or %s, or %s", at, clip(text), maxHistory, fullWord, noneWord)
		return 0, false
	}
	return int32(number), false
}

// workingDirectory is a folder within the workspace; "" is its top.
func (f *file) workingDirectory(at string, n *yaml.Node) string {
	text, n, ok := f.text(at, n)
	if !ok {
		return ""
	}
	folder := path.Clean(text)
	switch {
	case strings.TrimSpace(text) == "":
		f.complainf(n, "%s is empty: leave it out for the top of the workspace", at)
	case strings.ContainsFunc(text, unicode.IsControl) || len(text) > 1000:
		f.complainf(n, "%s: %q is not a folder: expected one line of 1,000 characters at most", at, clip(text))
	case path.IsAbs(folder) || folder == ".." || strings.HasPrefix(folder, "../"):
		f.complainf(n, "%s: %q is outside of the workspace: expected a folder within it, such as web", at, clip(text))
	case folder == ".":
		return ""
	}
	return folder
}

// outside reports whether names, none of them a pattern, match none of the
// patterns.
func outside(names, patterns []string) bool {
	if len(patterns) == 0 {
		return false
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		return strings.ContainsAny(name, "*?[{\\") || slices.ContainsFunc(patterns, func(p string) bool { return doublestar.MatchUnvalidated(p, name) })
	})
}
