package githubsim

import (
	"fmt"
	"maps"
	"strings"
)

// Fork copies a repository into another account. One that does not exist yet becomes a person's. A pull request from the
// fork has a Head of "account:branch". Repository and fork share their commits, as on GitHub: what is pushed to the
// fork can be read by its sha through the repository too.
func (s *Sim) Fork(owner, repo, into string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	who := s.user(into)
	if s.repositories[key(who.login, r.name)] != nil {
		return fmt.Errorf("repository %s/%s exists already", who.login, r.name)
	}
	now := s.now()
	fork := &repository{
		id: s.id(), owner: who, name: r.name, public: r.public, parent: r, defaultBranch: r.defaultBranch,
		created: now, updated: now, pushed: r.pushed, commits: r.commits, refs: maps.Clone(r.refs), annotated: maps.Clone(r.annotated), statuses: map[string][]*Status{},
	}
	maps.DeleteFunc(fork.refs, func(ref, _ string) bool {
		return !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/")
	})
	s.register(fork)
	if i := s.installationOn(fork); i != nil {
		s.emitSelection(i, "added", fork)
	}
	return nil
}

// root returns the repository that all of the network were forked from.
func (r *repository) root() *repository {
	for r.parent != nil {
		r = r.parent
	}
	return r
}

// headOf finds the branch that a pull request into r names: its own, or "account:branch" of a fork.
func (s *state) headOf(r *repository, name string) end {
	login, branch, qualified := strings.Cut(name, ":")
	if !qualified || strings.EqualFold(login, r.owner.login) {
		return end{repo: r, branch: name[strings.Index(name, ":")+1:]}
	}
	for _, other := range s.network(r) {
		if strings.EqualFold(other.owner.login, login) {
			return end{repo: other, branch: branch}
		}
	}
	return end{}
}
