package buildfile

import (
	"strings"

	"go.yaml.in/yaml/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const maxNotify = 10

// telling reads whom to tell.
type telling struct{ *file }

// all are one or a list of them.
func (f telling) all(at string, n *yaml.Node) []*configv1.Notify {
	items := f.items(at, n)
	if len(items) > maxNotify {
		f.complainf(items[maxNotify], "%s has more than %d entries", at, maxNotify)
		return nil
	}
	var all []*configv1.Notify
	for _, item := range items {
		c := &configv1.Notify{When: configv1.Notify_WHEN_CHANGES}
		given := readMapping(f.file, at, item, c, notifyKeys())
		if (given["secret"] == nil) == (given["channel"] == nil) {
			f.complainf(f.place(item), "%s: name either secret, one of the repository that holds the address of a chat, or channel, one that the server has", at)
		}
		all = append(all, c)
	}
	return all
}

func notifyKeys() []key[*configv1.Notify] {
	return []key[*configv1.Notify]{
		{name: "secret", read: func(f *file, path string, n *yaml.Node, c *configv1.Notify) {
			c.Secret = telling{f}.named(path, n, f.variable)
		}},
		{name: "channel", read: func(f *file, path string, n *yaml.Node, c *configv1.Notify) {
			c.Channel = telling{f}.named(path, n, telling{f}.channel)
		}},
		{name: "when", read: func(f *file, path string, n *yaml.Node, c *configv1.Notify) {
			c.When, _ = oneWord(f, path, n, notifyWords(), "a time to tell")
		}},
		{name: "branches", read: func(f *file, path string, n *yaml.Node, c *configv1.Notify) {
			c.Branches = f.globs(path, n)
		}},
	}
}

func notifyWords() []word[configv1.Notify_When] {
	return []word[configv1.Notify_When]{
		{"changes", configv1.Notify_WHEN_CHANGES},
		{"failures", configv1.Notify_WHEN_FAILURES},
		{"always", configv1.Notify_WHEN_ALWAYS},
	}
}

// named is a name, and no address, which would be for everybody to see who can read the
// file: what is complained of does not repeat it.
func (f telling) named(path string, n *yaml.Node, check func(string, *yaml.Node)) string {
	name, n, ok := f.text(path, n)
	switch {
	case !ok:
	case strings.Contains(name, ":"):
		f.complainf(n, "%s: this is an address: put it into a secret of the repository, and the name of the secret here", path)
	default:
		check(path, n)
	}
	return name
}

func (f telling) channel(path string, n *yaml.Node) {
	if name := n.Value; !jobPattern.MatchString(name) || len(name) > maxScheduleName {
		f.complainf(n, "%s: %q cannot be the name of a channel", path, clip(name))
	}
}
