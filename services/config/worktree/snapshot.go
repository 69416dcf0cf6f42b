package worktree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// Message is that of the commit that has what is not committed.
const Message = "Uncommitted changes"

const (
	repositoryID  = 1
	submoduleMode = "160000"
)

// Snapshot is a working tree as it was at one moment.
type Snapshot struct {
	*Tree
	// SHA is the commit: that of HEAD where nothing is changed.
	SHA string
	// Head is HEAD's.
	Head string

	mirrors *mirror.Mirrors
	remote  mirror.Remote
	bare    git
	scratch string
	modules map[string]mirror.Remote // of submodules, by the addresses that .gitmodules has, made whole
	objects []string                 // folders of objects that the copy reads
	shallow []string
}

// Take takes one, into a folder that the caller removes.
func (t *Tree) Take(ctx context.Context, dir string) (*Snapshot, error) {
	mirrors, err := mirror.New(ctx, mirror.Config{Dir: dir, MaxBytes: 1 << 62})
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Tree: t, mirrors: mirrors, scratch: dir, modules: map[string]mirror.Remote{}}
	format := t.git.line(ctx, "rev-parse", "--show-object-format")
	s.remote = remoteAt(ctx, t.url, t.Owner+"/"+t.Name, t.git)
	at := mirrors.Path(s.remote)
	if _, err := t.git.run(ctx, "init", "--quiet", "--bare", "--template=", "--object-format="+format, at); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(at, "objects", "info"), 0o700); err != nil {
		return nil, err
	}
	s.bare = git{dir: at, environ: []string{"GIT_DIR=" + at}}
	if s.SHA, err = s.take(ctx, t.git, t.url, ""); err != nil {
		return nil, err
	}
	s.Head = t.git.line(ctx, "rev-parse", "HEAD")
	return s, errors.Join(s.writeObjects(), s.writeRefs(ctx))
}

// remoteAt is a repository of this machine, for the mirrors.
func remoteAt(ctx context.Context, address, noun string, of git) mirror.Remote {
	return mirror.Remote{
		ID: repositoryID, URL: address, Noun: noun, Here: true,
		LFS: of.line(ctx, "rev-parse", "--path-format=absolute", "--git-path", "lfs"),
	}
}

// take makes the commit of one repository, after those of its submodules.
func (s *Snapshot) take(ctx context.Context, of git, address, below string) (string, error) {
	head := of.line(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	gitDir := of.line(ctx, "rev-parse", "--absolute-git-dir")
	objects := of.line(ctx, "rev-parse", "--path-format=absolute", "--git-path", "objects")
	if head == "" || gitDir == "" || objects == "" {
		return "", fmt.Errorf("the repository at %s has no commit", of.dir)
	}
	s.objects = append(s.objects, objects)
	if text, err := os.ReadFile(of.line(ctx, "rev-parse", "--path-format=absolute", "--git-path", "shallow")); err == nil {
		s.shallow = append(s.shallow, strings.TrimSpace(string(text)))
	}
	index, err := os.CreateTemp(s.scratch, "index-")
	if err != nil {
		return "", err
	}
	defer os.Remove(index.Name()) //nolint:errcheck // the folder is removed anyway
	err = copyFile(index, filepath.Join(gitDir, "index"))
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(index.Name())
	}
	if err != nil {
		return "", fmt.Errorf("index of %s: %w", of.dir, err)
	}
	own := git{dir: of.dir, environ: []string{
		"GIT_INDEX_FILE=" + index.Name(), "GIT_OBJECT_DIRECTORY=" + filepath.Join(s.bare.dir, "objects"),
		"GIT_ALTERNATE_OBJECT_DIRECTORIES=" + quotedPath(objects),
	}}
	if _, err := own.run(ctx, "add", "--all", "--", "."); err != nil {
		return "", err
	}
	if err := s.takeModules(ctx, own, address, below); err != nil {
		return "", err
	}
	tree, err := own.run(ctx, "write-tree")
	if err != nil {
		return "", err
	}
	tree = strings.TrimSpace(tree)
	if tree == own.line(ctx, "rev-parse", head+"^{tree}") {
		return head, nil
	}
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		own.environ = append(own.environ, "GIT_"+who+"_NAME="+s.Person, "GIT_"+who+"_EMAIL="+s.Person+"@localhost", "GIT_"+who+"_DATE="+now())
	}
	sha, err := own.run(ctx, "-c", "commit.gpgSign=false", "commit-tree", tree, "-p", head, "-m", Message)
	return strings.TrimSpace(sha), err
}

// takeModules has each submodule that is checked out be as it is now.
func (s *Snapshot) takeModules(ctx context.Context, own git, address, below string) error {
	text, err := own.run(ctx, "ls-files", "--stage", "-z")
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(text, "\x00") {
		about, name, _ := strings.Cut(entry, "\t")
		if !strings.HasPrefix(about, submoduleMode+" ") {
			continue
		}
		dir := filepath.Join(own.dir, filepath.FromSlash(name))
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
			continue // not checked out; said where it is wanted
		}
		at := path.Join(below, name)
		inside, err := s.moduleAddress(ctx, own, address, name)
		if err != nil {
			return fmt.Errorf("submodule %s: %w", at, err)
		}
		sha, err := s.take(ctx, git{dir: dir}, inside, at)
		if err != nil {
			return fmt.Errorf("submodule %s: %w", at, err)
		}
		s.modules[inside] = remoteAt(ctx, inside, "submodule "+at, git{dir: dir})
		if _, err := own.run(ctx, "update-index", "--cacheinfo", submoduleMode+","+sha+","+name); err != nil {
			return err
		}
	}
	return nil
}

// moduleAddress is what .gitmodules has for the submodule at a path, made whole; "" where
// it has nothing.
func (s *Snapshot) moduleAddress(ctx context.Context, own git, parent, name string) (string, error) {
	text, err := own.run(ctx, "config", "--file", filepath.Join(own.dir, ".gitmodules"), "-z", "--get-regexp", `^submodule\..*\.path$`)
	if err != nil {
		return "", nil // there is no such file, or it names none
	}
	for entry := range strings.SplitSeq(text, "\x00") {
		key, at, _ := strings.Cut(entry, "\n")
		if path.Clean(at) != name {
			continue
		}
		address := own.line(ctx, "config", "--file", filepath.Join(own.dir, ".gitmodules"), "--get", strings.TrimSuffix(key, ".path")+".url")
		return mirror.Resolve(parent, address)
	}
	return "", nil
}

// submodule is where a submodule is, by its address.
func (s *Snapshot) submodule(_ context.Context, address string) (mirror.Remote, error) {
	if found, ok := s.modules[address]; ok {
		return found, nil
	}
	return mirror.Remote{}, fault.Newf(fault.NotFound, "%s is not checked out here: git submodule update --init --recursive", address)
}

// writeObjects has the copy read the objects of the repositories where they are.
func (s *Snapshot) writeObjects() error {
	var lines strings.Builder
	for _, folder := range s.objects {
		lines.WriteString(quotedPath(folder) + "\n")
	}
	err := os.WriteFile(filepath.Join(s.bare.dir, "objects", "info", "alternates"), []byte(lines.String()), 0o600)
	if len(s.shallow) == 0 || err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.bare.dir, "shallow"), []byte(strings.Join(s.shallow, "\n")+"\n"), 0o600)
}

// writeRefs has the copy know tags, and branches as origin has them, or else as they are
// here. What is checked out is at the snapshot, unless it is the default branch.
func (s *Snapshot) writeRefs(ctx context.Context) error {
	text, err := s.git.run(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/tags", "refs/heads", "refs/remotes/origin")
	if err != nil {
		return err
	}
	refs := map[string]string{}
	for line := range strings.Lines(text) { // heads come before remotes
		sha, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if branch, ofOrigin := strings.CutPrefix(name, "refs/remotes/origin/"); ofOrigin {
			name = "refs/heads/" + branch
			if branch == "HEAD" {
				continue
			}
		}
		refs[name] = sha
	}
	if s.Branch != "" && s.Branch != s.DefaultBranch {
		refs["refs/heads/"+s.Branch] = s.SHA
	}
	var all strings.Builder
	for name, sha := range refs {
		fmt.Fprintf(&all, "create %s %s\n", name, sha)
	}
	_, err = s.bare.feed(ctx, all.String(), "update-ref", "--stdin")
	return err
}

func copyFile(to *os.File, from string) error {
	defer to.Close() //nolint:errcheck // Sync is not wanted, and a short write is an error of Copy
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	_, err = io.Copy(to, file)
	return err
}

// quotedPath is a path among others, as git reads lists of folders.
func quotedPath(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}
