package worktree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Tree is a working tree.
type Tree struct {
	// Top is its folder.
	Top string
	// Owner and Name are those of the repository that origin leads to, or else "local"
	// and the name of the folder.
	Owner, Name string
	// Branch is what is checked out; "" where it is no branch.
	Branch string
	// DefaultBranch is that of origin as this repository knows it, or else main, master
	// or the branch itself.
	DefaultBranch string
	// Person is who works here, as git knows them.
	Person string

	git git
	url string // what origin is for builds, over HTTPS
}

// Open finds the working tree that a folder is in.
func Open(ctx context.Context, dir string) (*Tree, error) {
	g := git{dir: dir}
	top, err := g.run(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		if strings.Contains(err.Error(), "not a git repository") || strings.Contains(err.Error(), "must be run in a work tree") {
			return nil, fmt.Errorf("%s is in no working tree of git: go to one, or make it one by git init", dir)
		}
		return nil, err
	}
	t := &Tree{Top: strings.TrimSuffix(top, "\n")}
	t.git = git{dir: t.Top}
	if t.git.line(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") == "" {
		return nil, fmt.Errorf("the repository at %s has no commit yet, which a build needs to stand on: git add . && git commit", t.Top)
	}
	t.Branch = t.git.line(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	t.DefaultBranch = t.defaultBranch(ctx)
	t.Person = person(cmp.Or(t.git.line(ctx, "config", "user.name"), os.Getenv("USER")))
	t.locate(t.git.line(ctx, "config", "remote.origin.url"))
	return t, nil
}

func (t *Tree) defaultBranch(ctx context.Context) string {
	if name, found := strings.CutPrefix(t.git.line(ctx, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"), "origin/"); found {
		return name
	}
	for _, name := range []string{"main", "master"} {
		if t.Tip(ctx, name) != "" {
			return name
		}
	}
	return cmp.Or(t.Branch, "main")
}

// Tip is the newest commit that is known of a branch of origin, or else of one here; ""
// where there is none.
func (t *Tree) Tip(ctx context.Context, branch string) string {
	for _, ref := range []string{"refs/remotes/origin/", "refs/heads/"} {
		if sha := t.git.line(ctx, "rev-parse", "--verify", "--quiet", ref+branch+"^{commit}"); sha != "" {
			return sha
		}
	}
	return ""
}

var (
	scpPattern  = regexp.MustCompile(`^(?:[^@/:]+@)?([^/:]+):([^/].*)$`)
	namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	noLogin     = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

// locate reads owner and name from the address of origin, as people write it.
func (t *Tree) locate(origin string) {
	t.Owner, t.Name = "local", noLogin.ReplaceAllString(filepath.Base(t.Top), "-")
	host := "localhost"
	if m := scpPattern.FindStringSubmatch(origin); m != nil && !strings.Contains(origin, "://") {
		origin = "ssh://" + m[1] + "/" + m[2]
	}
	if u, err := url.Parse(origin); err == nil && u.Hostname() != "" {
		parts := strings.Split(strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git"), "/")
		if n := len(parts); n >= 2 && namePattern.MatchString(parts[n-2]) && namePattern.MatchString(parts[n-1]) {
			t.Owner, t.Name, host = parts[n-2], parts[n-1], u.Hostname()
		}
	}
	t.url = fmt.Sprintf("https://%s/%s/%s.git", host, t.Owner, t.Name)
}

// person is a name as a login.
func person(name string) string {
	return cmp.Or(strings.Trim(noLogin.ReplaceAllString(name, "-"), "-"), "somebody")
}

// ErrNoFile is what Read has where there is no file.
var ErrNoFile = errors.New("there is no .forge.yml in the working tree: write one, see forge check")

// now is the time of the commit that nobody has made.
func now() string { return time.Now().UTC().Format(time.RFC3339) }

// TagAtHead is the name of a tag at HEAD; "" for none.
func (t *Tree) TagAtHead(ctx context.Context) string {
	return t.git.line(ctx, "describe", "--tags", "--exact-match", "HEAD")
}

// Pushed is what origin has of a branch; "" where it has none.
func (t *Tree) Pushed(ctx context.Context, branch string) string {
	return t.git.line(ctx, "rev-parse", "--verify", "--quiet", "refs/remotes/origin/"+branch+"^{commit}")
}

// Count is how many commits the snapshot has that another lacks; 0 where that is "".
func (s *Snapshot) Count(ctx context.Context, other string) int {
	if other == "" {
		return 0
	}
	count, _ := strconv.Atoi(s.bare.line(ctx, "rev-list", "--count", other+".."+s.SHA))
	return count
}
