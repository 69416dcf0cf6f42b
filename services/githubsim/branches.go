package githubsim

import "fmt"

// CreateBranch makes a branch at another branch, a tag or a commit, which sends a push.
func (s *Sim) CreateBranch(owner, repo, branch, from string) error {
	return s.createRef(owner, repo, "branch", branch, from)
}

// DeleteBranch deletes a branch, which sends a push and closes the pull requests from and into it.
func (s *Sim) DeleteBranch(owner, repo, branch string) error {
	return s.deleteRef(owner, repo, "branch", branch)
}

// CreateTag makes a lightweight tag, which sends a push.
func (s *Sim) CreateTag(owner, repo, tag, at string) error {
	return s.createRef(owner, repo, "tag", tag, at)
}

// CreateTags makes several tags in one push. Of more than three GitHub sends no push.
// https://docs.github.com/webhooks/webhook-events-and-payloads#push
func (s *Sim) CreateTags(owner, repo, at string, tags ...string) error {
	for _, tag := range tags {
		if err := s.createRefOf(owner, repo, "tag", tag, at, len(tags) > mostPushed); err != nil {
			return err
		}
	}
	return nil
}

// mostPushed are the branches or tags of one push that GitHub sends events of.
const mostPushed = 3

// DeleteTag deletes a tag, which sends a push.
func (s *Sim) DeleteTag(owner, repo, tag string) error {
	return s.deleteRef(owner, repo, "tag", tag)
}

// refPrefixes are what the refs of a kind begin with.
var refPrefixes = map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}

func (s *changes) createRef(owner, repo, kind, name, from string) error {
	return s.createRefOf(owner, repo, kind, name, from, false)
}

// createRefOf makes a ref, of which nothing is sent where it is silent.
func (s *changes) createRefOf(owner, repo, kind, name, from string, silent bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	c := r.resolve(from)
	if c == nil {
		return fmt.Errorf("%s %s of %s: no commit at %s", kind, name, r.fullName(), from)
	}
	ref := refPrefixes[kind] + name
	if r.refs[ref] != "" {
		return fmt.Errorf("%s %s of %s exists already", kind, name, r.fullName())
	}
	if silent {
		r.refs[ref] = c.sha
		return nil
	}
	s.move(r, ref, c.sha, s.user(""))
	return nil
}

func (s *changes) deleteRef(owner, repo, kind, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	ref := refPrefixes[kind] + name
	if r.refs[ref] == "" {
		return fmt.Errorf("%s %s of %s does not exist", kind, name, r.fullName())
	}
	if ref == "refs/heads/"+r.defaultBranch {
		return fmt.Errorf("branch %s of %s is the default one and stays", name, r.fullName())
	}
	s.move(r, ref, "", s.user(""))
	return nil
}
