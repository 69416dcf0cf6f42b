package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	maxModules = 100 // in all
	maxDepth   = 10  // of submodules within submodules
)

// module is a repository of a checkout: the one that is built, or a submodule.
type module struct {
	remote   Remote
	want     Want
	children []*module
	// Of a submodule: its name and its folder, within all of the checkout, and where
	// its repository is below .git; "" for the top.
	name, path, below string
}

func (o *module) workTreeFolder() string {
	if o.path == "" {
		return treeFolder
	}
	return treeFolder + o.path + "/"
}

func (o *module) gitDir() string { return gitFolder + o.below }

// gitFile leads from the folder of a submodule to its repository.
func (o *module) gitFile() string {
	up := strings.Repeat("../", strings.Count(o.path, "/")+1)
	return "gitdir: " + up + ".git/" + strings.TrimSuffix(o.below, "/") + "\n"
}

// workTree leads from the repository of a submodule to its folder.
func (o *module) workTree() string {
	return strings.Repeat("../", strings.Count(o.below, "/")+1) + o.path
}

// quoted is a value in a file of git's configuration.
func quoted(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}

// gather fetches what is wanted, with its submodules, and returns these. No lock is
// held meanwhile but that of what is fetched: of two that want each other, neither
// waits.
func (m *Mirrors) gather(ctx context.Context, remote Remote, want *Want) ([]*module, error) {
	g := gathering{mirrors: m, top: &module{remote: remote, want: *want}}
	if err := g.gather(ctx, g.top, 0); err != nil {
		return nil, err
	}
	*want = g.top.want
	return g.top.children, nil
}

type gathering struct {
	mirrors *Mirrors
	top     *module
	count   int
}

func (g *gathering) gather(ctx context.Context, of *module, depth int) error {
	acquire := g.mirrors.acquire
	if of.want.Into != "" {
		acquire = func(ctx context.Context, remote Remote, _ Want) (*repository, error) {
			return g.mirrors.acquireMerge(ctx, remote, &of.want)
		}
	}
	if of.want.Difference != nil {
		acquire = func(ctx context.Context, remote Remote, _ Want) (*repository, error) {
			return g.mirrors.acquireDifference(ctx, remote, &of.want)
		}
	}
	r, err := acquire(ctx, of.remote, of.want)
	if err != nil {
		return err
	}
	var found []submodule
	if of.want.Submodule != nil {
		found, err = r.submodules(ctx, of.want.SHA)
	}
	r.lock.free()
	if err != nil {
		return fmt.Errorf("submodules of %s: %w", of.remote.Noun, err)
	}
	for _, one := range found {
		if g.count++; g.count > maxModules || depth == maxDepth {
			return fault.Newf(fault.Exhausted, "%s has more than %d submodules, or more than %d within each other", g.top.remote.Noun, maxModules, maxDepth)
		}
		child := &module{
			name: one.name, path: path.Join(of.path, one.path), below: of.below + "modules/" + one.name + "/",
			want: Want{SHA: one.sha, Submodule: of.want.Submodule, LFS: of.want.LFS, Packed: of.want.Packed},
		}
		noun := "submodule " + child.path
		address, err := Resolve(of.remote.URL, one.url)
		if err != nil {
			return fault.Newf(fault.Invalid, "%s: %w", noun, err)
		}
		if child.remote, err = of.want.Submodule(ctx, address); err != nil {
			return fmt.Errorf("%s: %w", noun, err)
		}
		if err := g.gather(ctx, child, depth+1); err != nil {
			return fmt.Errorf("%s: %w", noun, err)
		}
		of.children = append(of.children, child)
	}
	return nil
}

// submodule is what a commit has at a folder, and what .gitmodules says of that.
type submodule struct{ name, path, url, sha string }

// submodules are those of a commit that .gitmodules names. What that says has passed
// git's own check when it was fetched.
func (r *repository) submodules(ctx context.Context, sha string) ([]submodule, error) {
	entries, err := r.tree(ctx, sha)
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for _, e := range entries {
		if e.isSubmodule() {
			at[e.path] = e.sha
		}
	}
	if len(at) == 0 {
		return nil, nil
	}
	text, err := r.output(ctx, "config", "--blob", sha+":.gitmodules", "-z", "--list")
	if err != nil {
		if says(err, "unable to resolve config blob", "does not exist") {
			return nil, nil // git itself makes nothing of them
		}
		return nil, fault.Newf(fault.Invalid, ".gitmodules: %w", err)
	}
	var names []string
	values := map[string]map[string]string{}
	for entry := range strings.SplitSeq(text, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		rest, isModule := strings.CutPrefix(key, "submodule.")
		dot := strings.LastIndex(rest, ".")
		if !isModule || dot < 0 {
			continue
		}
		name := rest[:dot]
		if values[name] == nil {
			names, values[name] = append(names, name), map[string]string{}
		}
		values[name][rest[dot+1:]] = value
	}
	var all []submodule
	for _, name := range names {
		folder := path.Clean(values[name]["path"])
		if commit := at[folder]; commit != "" && values[name]["url"] != "" && cleanName(name) {
			all = append(all, submodule{name: name, path: folder, url: values[name]["url"], sha: commit})
			delete(at, folder)
		}
	}
	return all, nil
}

// cleanName reports whether a name is a path below a folder, as git wants it too.
func cleanName(name string) bool {
	return name != "" && !path.IsAbs(name) && path.Clean(name) == name && name != ".." && !strings.HasPrefix(name, "../")
}

// Resolve is where a submodule is, of which .gitmodules may say it from where its
// parent is.
func Resolve(parent, text string) (string, error) {
	if !strings.HasPrefix(text, "./") && !strings.HasPrefix(text, "../") {
		return text, nil
	}
	base, err := url.Parse(parent + "/")
	if err != nil {
		return "", errors.New("its address cannot be read")
	}
	relative, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("its address %q cannot be read", text)
	}
	return strings.TrimSuffix(base.ResolveReference(relative).String(), "/"), nil
}
