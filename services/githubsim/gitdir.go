package githubsim

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// adopt gives a new repository the branches and tags of its GitDir.
func (s *changes) adopt(r *repository) error {
	store, err := s.disk.store(r)
	if err != nil {
		return err
	}
	objects, err := s.disk.outputOf(r.gitDir, "rev-parse", "--git-path", "objects")
	if err != nil {
		return err
	}
	path := strings.TrimSpace(objects)
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.gitDir, path)
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	info := filepath.Join(store.objects(), "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(path+"\n"), 0o600); err != nil {
		return err
	}
	if r.inGitDir, err = s.disk.refsOf(r.gitDir); err != nil {
		return err
	}
	if err := s.learn(r, store.reader, r.inGitDir); err != nil {
		return err
	}
	for ref, at := range r.inGitDir {
		r.refs[ref] = at.commit
		s.annotate(r, ref, at)
	}
	return nil
}

// learn reads the commits that refs lead to.
func (s *changes) learn(r *repository, from *reader, refs map[string]gitRef) error {
	var wanted, known []string
	for _, at := range refs {
		if r.commits[at.commit] == nil {
			wanted = append(wanted, at.commit)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for _, sha := range r.refs {
		if r.commits[sha].stored {
			known = append(known, sha)
		}
	}
	found, err := from.commits(wanted, known, s.now())
	for _, c := range found {
		r.commits.keep(c)
	}
	return err
}

// annotate keeps the tag that a ref is at, if it is at one.
func (s *changes) annotate(r *repository, ref string, at gitRef) {
	delete(r.annotated, ref)
	if at.object != at.commit {
		r.annotated[ref] = &tag{
			sha: at.object, target: at.commit, name: strings.TrimPrefix(ref, refPrefixes["tag"]), message: at.subject, by: s.user(""), time: s.now(),
		}
	}
}

// A gitRef is where git has a ref: at an object, which is a commit, or a tag that leads to one.
type gitRef struct{ object, commit, subject string }

// refsOf lists the refs of a folder of git's that lead to commits.
func (d *disk) refsOf(folder string) (map[string]gitRef, error) {
	listed, err := d.outputOf(folder, "for-each-ref", "--format=%(refname) %(objectname) %(objecttype) %(*objectname) %(*objecttype)\t%(contents:subject)", "refs/heads", "refs/tags")
	if err != nil {
		return nil, err
	}
	refs := map[string]gitRef{}
	for line := range strings.Lines(listed) {
		about, subject, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		switch columns := strings.Fields(about); {
		case len(columns) == 3 && columns[2] == "commit":
			refs[columns[0]] = gitRef{columns[1], columns[1], ""}
		case len(columns) == 5 && columns[4] == "commit":
			refs[columns[0]] = gitRef{columns[1], columns[3], subject}
		}
	}
	return refs, nil
}

// outputOf runs git in a folder that is not this GitHub's.
func (d *disk) outputOf(folder string, args ...string) (string, error) {
	cmd := in(folder, "", exec.Command("git", args...)) //nolint:noctx // it is over soon, and close waits for it
	cmd.Env = slices.DeleteFunc(cmd.Env, func(one string) bool {
		return strings.HasPrefix(one, "GIT_DIR=") || strings.HasPrefix(one, "GIT_OBJECT_DIRECTORY=")
	})
	cmd.Env = append(cmd.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	return d.output(cmd)
}

// SyncGitDir has a repository follow its GitDir, where git has moved branches or tags meanwhile: each that moved is pushed
// by author, "octocat" if empty.
func (s *Controls) SyncGitDir(owner, repo, author string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	if r.gitDir == "" {
		return fmt.Errorf("repository %s has no GitDir", r.fullName())
	}
	refs, err := s.disk.refsOf(r.gitDir)
	if err != nil {
		return err
	}
	objects, err := s.disk.store(r)
	if err != nil {
		return err
	}
	before := r.inGitDir
	if err := s.learn(r, objects.reader, refs); err != nil {
		return err
	}
	r.inGitDir = refs
	by := s.user(author)
	r.letWrite(by)
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		if at := refs[ref]; before[ref] != at {
			s.annotate(r, ref, at)
			s.move(r, ref, at.commit, by)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(before)) {
		if _, left := refs[ref]; !left && r.refs[ref] != "" {
			s.move(r, ref, "", by)
		}
	}
	return nil
}

// AddObject keeps an object as it is, and returns its sha: a blob, tree, commit or tag that git's own commands would not
// make, such as a tree with a name of "..". Commit.Tree and SetRef have others find it.
func (s *Controls) AddObject(owner, repo, kind string, content []byte) (sha string, err error) {
	s.mu.Lock()
	r, err := s.find(owner, repo)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	objects, err := s.disk.store(r)
	if err != nil {
		return "", err
	}
	objects.mu.Lock()
	defer objects.mu.Unlock()
	sha = hashObject(kind, content)
	return sha, objects.add(kind, sha, content)
}

// SetRef moves a branch or tag, such as "refs/heads/main", to any commit or tag that there is, which sends a push: a
// forced one where the commit does not follow from the one before. A ref that is not there yet is made.
func (s *Sim) SetRef(owner, repo, ref, sha string) error {
	s.mu.Lock()
	r, err := s.find(owner, repo)
	known := err == nil && r.commits[sha] != nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(ref, refPrefixes["branch"]) && !strings.HasPrefix(ref, refPrefixes["tag"]) {
		return fmt.Errorf("%s of %s is no branch or tag", ref, r.fullName())
	}
	end, err := s.disk.hold(nil)
	if err != nil {
		return err
	}
	defer end()
	objects, err := s.disk.store(r)
	if err != nil {
		return err
	}
	at := gitRef{object: sha, commit: sha}
	if !known {
		if _, err := (&gitAPI{s.changes}).refresh(objects, r); err != nil { // the object may lead to what is on no disk yet
			return err
		}
		commit, err := objects.reader.output("", "rev-parse", "--verify", sha+"^{commit}")
		if err != nil {
			return fmt.Errorf("%s of %s: no commit at %s: %w", ref, r.fullName(), sha, err)
		}
		at.commit = strings.TrimSpace(commit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.learn(r, objects.reader, map[string]gitRef{ref: at}); err != nil {
		return fmt.Errorf("%s of %s at %s: %w", ref, r.fullName(), sha, err)
	}
	s.annotate(r, ref, at)
	s.move(r, ref, at.commit, s.user(""))
	return nil
}
