package buildfile

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	maxCaches     = 10
	maxKey        = 512 // bytes, of what a key comes to
	maxRestore    = 10
	maxCachePaths = 50
	maxPath       = 1000 // bytes
	maxHashed     = 20   // patterns of one ${hash:…}
	hashSize      = 32   // bytes that ${hash:…} comes to
	hashWord      = "hash:"
)

// keyVariables are those of a build that a key can name: they are known before the
// build begins, and are one line each.
var keyVariables = []string{
	"FORGE_ACTION", "FORGE_BASE_REF", "FORGE_BASE_SHA", "FORGE_BUILD_ID", "FORGE_JOB", "FORGE_REF", "FORGE_SHA", "FORGE_TAG",
}

// caching reads caches.
type caching struct{ *file }

// all are one, a list of them, or an empty list, which stands for none.
func (f caching) all(at string, n *yaml.Node) []*configv1.Cache {
	if f.none(n) {
		return nil
	}
	items := f.items(at, n)
	if len(items) > maxCaches {
		f.complainf(f.place(n), "%s has more than %d caches: put paths that change together into one", at, maxCaches)
		return nil
	}
	var caches []*configv1.Cache
	for _, item := range items {
		before := len(f.problems)
		c := &configv1.Cache{}
		if readMapping(f.file, at, item, c, cacheKeys()) == nil || len(f.problems) > before {
			continue
		}
		if slices.ContainsFunc(caches, func(other *configv1.Cache) bool { return alike(c, other) }) {
			f.complainf(f.place(item), "%s: a cache before this one has the same key and paths: leave one of them out", at)
		}
		caches = append(caches, c)
	}
	return caches
}

// alike reports whether two caches would be kept as one.
func alike(a, b *configv1.Cache) bool {
	return a.GetKey() == b.GetKey() && slices.Equal(slices.Sorted(slices.Values(a.GetPaths())), slices.Sorted(slices.Values(b.GetPaths())))
}

// key is a key, or the beginning of one, with the values of the matrix in it.
// What ${…} remains is ${hash:…} or a variable, and nothing else has a $, so that
// whoever fills in the rest cannot take a value for more than it is.
func (f caching) key(at string, n *yaml.Node) string {
	text, n, ok := f.filledText(at, n, f.inKey)
	if !ok {
		return ""
	}
	_, size := aroundHoles(text)
	if f.names(at, n, text, "a key", "go-${hash:go.sum}") && size > maxKey {
		f.complainf(n, "%s has more than %d bytes, of which a hash is %d", at, maxKey, hashSize)
	}
	return text
}

// names reports whether a text that was filled in can name something, such as a key, and
// complains where it cannot.
func (f *file) names(at string, n *yaml.Node, text, noun, example string) bool {
	written, _ := aroundHoles(n.Value)
	switch {
	case strings.TrimSpace(text) == "":
		f.complainf(n, "%s is empty: expected text such as %s", at, example)
	case strings.Contains(written, "$"):
		f.complainf(n, "%s: %s can hold $ as the beginning of ${…} alone", at, noun)
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		f.complainf(n, "%s: expected one line of text that can be seen", at)
	default:
		return true
	}
	return false
}

// aroundHoles returns what stands around ${…}, and how long the text is once each hash has
// been filled in.
func aroundHoles(text string) (around string, size int) {
	var kept strings.Builder
	size = len(text)
	for {
		before, rest, found := strings.Cut(text, hole)
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			kept.WriteString(text)
			return kept.String(), size
		}
		kept.WriteString(before)
		if strings.HasPrefix(name, hashWord) {
			size += hashSize - len(hole+name+"}")
		}
		text = after
	}
}

// inKey is what ${…} stands for in a key; what forgexec fills in stands for itself.
func (f caching) inKey(name string) (value, problem string) {
	if patterns, ok := strings.CutPrefix(name, hashWord); ok {
		return hole + name + "}", hashProblem(patterns)
	}
	value, known := f.cell.value(name)
	switch {
	case known && strings.Contains(value, "$"):
		return "", "a key cannot hold the $ of ${" + clip(name) + "}, which is " + clip(value)
	case known:
		return value, ""
	case slices.Contains(keyVariables, name):
		return hole + name + "}", ""
	case strings.HasPrefix(name, "FORGE"):
		return "", "${" + clip(name) + "} is no variable for a key: there are " + strings.Join(keyVariables, ", ")
	}
	return "", f.unknownHole(name) + "; besides there are ${hash:FILES} and variables such as ${FORGE_SHA}"
}

// hashProblem is what is wrong with the patterns of a ${hash:…}; "" for nothing.
func hashProblem(patterns string) string {
	all := strings.Split(patterns, ",")
	if len(all) > maxHashed || len(patterns) > maxPath {
		return "${hash:…} takes 20 patterns of 1,000 bytes in all"
	}
	for _, p := range all {
		why := ""
		switch {
		case strings.TrimSpace(p) != p || p == "":
			why = "expected patterns of files with a comma between them, and no blanks around it"
		case strings.Contains(p, "{"):
			why = "instead of {a,b} or ${…} write each pattern out, with a comma between them"
		case path.IsAbs(p) || strings.HasPrefix(p, "~") || slices.Contains(parts(p), ".."):
			why = "it can only name files of the checkout, as paths within it"
		case slices.Contains(parts(p), gitFolder):
			why = "what git keeps in .git differs from build to build: name files of the checkout"
		case path.Clean(p) != p:
			why = "write it as " + clip(path.Clean(p))
		case !doublestar.ValidatePattern(p):
			why = "this is not a pattern: expected one such as go.sum or **/package-lock.json"
		}
		if why != "" {
			return "${hash:" + clip(cmp.Or(p, patterns)) + "}: " + why
		}
	}
	return ""
}

// restore are beginnings of keys.
func (f caching) restore(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	if len(items) > maxRestore {
		f.complainf(f.place(n), "%s has more than %d beginnings of keys", at, maxRestore)
		return nil
	}
	var all []string
	for _, item := range items {
		key := f.key(at, item)
		if key != "" && slices.Contains(all, key) {
			f.complainf(f.place(item), "%s: %q is named twice", at, clip(key))
		}
		all = append(all, key)
	}
	return all
}

func (f caching) paths(at string, n *yaml.Node) []string {
	items := f.items(at, n)
	if len(items) > maxCachePaths {
		f.complainf(f.place(n), "%s has more than %d paths: name the folders that hold them", at, maxCachePaths)
		return nil
	}
	var all []string
	for _, item := range items {
		text, item, ok := f.filledText(at, item, f.inPath)
		if !ok {
			continue
		}
		cleaned := path.Clean(text)
		if why := cachePathProblem(text, cleaned); why != "" {
			f.complainf(item, "%s: %q cannot be cached: %s", at, clip(text), why)
		} else if slices.Contains(all, cleaned) {
			f.complainf(item, "%s: %q is named twice", at, clip(text))
		}
		all = append(all, cleaned)
	}
	return all
}

// noShell says why a path has no variables.
const noShell = "no shell reads a path: write ~ for the home directory, and paths of the workspace without $FORGE_WORKSPACE"

func (f caching) inPath(name string) (value, problem string) {
	if value, problem = f.ofCell(name); problem != "" {
		problem += "; " + noShell
	}
	return value, problem
}

// cachePathProblem says why a path cannot be cached, and what to do; "" where it can.
func cachePathProblem(text, cleaned string) string {
	within := !path.IsAbs(cleaned) && !strings.HasPrefix(cleaned, "~")
	switch {
	case strings.TrimSpace(text) == "":
		return "it is empty: name a file or a folder, such as node_modules"
	case strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxPath:
		return "expected one line of 1,000 bytes at most"
	case slices.Contains(strings.Split(text, "/"), ".."):
		return ".. leads out of where it stands: write the path without it"
	case strings.Contains(text, "$"):
		return noShell
	case strings.ContainsAny(text, "*?[]{}\\"):
		return "a path is no pattern: name the folder that holds the files"
	case cleaned == "/":
		return "that is the whole container, image included: name the folders that the commands fill"
	case cleaned == ".":
		return "that is the whole workspace, and its files come from the commit: name the folders in it that the commands fill"
	case cleaned == "~":
		return "that is the whole home directory, credentials included: name folders in it, such as ~/.cache"
	case strings.HasPrefix(cleaned, "~") && !strings.HasPrefix(cleaned, "~/"):
		return "~ is the home directory of the user that the commands run as, and of no other: write ~/ and a path"
	case below(cleaned, "/proc", "/sys", "/dev"):
		return "what is there belongs to the kernel and is gone with the container: name files that the commands write"
	case below(cleaned, "/forge"):
		return "that folder is Forge's own: name what is in the workspace by its path within it, such as node_modules"
	case within && slices.ContainsFunc(strings.Split(cleaned, "/"), isGitFolder):
		return "git's own files come from Forge, and one that was put there could run in later builds: ask for more history with source instead"
	}
	return ""
}

// gitFolder is what git keeps its own files in.
const gitFolder = ".git"

func isGitFolder(name string) bool { return strings.EqualFold(name, gitFolder) }

// below reports whether a path is one of some folders, or in one.
func below(name string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") })
}
