package githubsim

import "fmt"

// SetPublic makes a repository public, or private.
func (s *Controls) SetPublic(owner, repo string, public bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	r.public = public
	return nil
}

// Identify returns the id of a repository, by a name that it has or had, and whether it is public.
func (s *Controls) Identify(owner, repo string) (id int64, public bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repositories[key(owner, repo)]
	if r == nil {
		r = s.moved[key(owner, repo)]
	}
	if r == nil || r.gone {
		return 0, false, fmt.Errorf("repository %s/%s does not exist", owner, repo)
	}
	return r.id, r.public, nil
}
