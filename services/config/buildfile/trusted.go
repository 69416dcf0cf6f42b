package buildfile

import (
	"path"
	"strings"

	"go.yaml.in/yaml/v4"
)

func (r *reader) truth(at string, n *yaml.Node) bool {
	n, ok := r.expect(at, n, yaml.ScalarNode, "true or false")
	if !ok {
		return false
	}
	if n.ShortTag() != "!!bool" {
		r.complainf(n, "%s: expected true or false, found %s", at, describe(n))
	}
	return strings.EqualFold(n.Value, "true")
}

// volumes are names that the server gives to folders of its own, and paths in the
// container.
func (f *file) volumes(at string, n *yaml.Node) map[string]string {
	entries, _ := f.entries(at, n)
	volumes := make(map[string]string, len(entries))
	for _, e := range entries {
		target, value, ok := f.text(e.path, e.value)
		if !hostPattern.MatchString(e.name) {
			f.complainf(e.key, "%s: %q cannot be the name of a volume: small letters, digits and -", at, clip(e.name))
		}
		if ok && (!path.IsAbs(target) || path.Clean(target) != target || target == "/" || target == "/forge" || strings.HasPrefix(target, "/forge/")) {
			f.complainf(value, "%s: %q is not a folder for a volume: expected an absolute path, such as /cache, and not below /forge", e.path, clip(target))
		}
		volumes[e.name] = target
	}
	return volumes
}
