package githubsim

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// RenameRepository renames a repository. The old name redirects to it until another repository gets that name.
func (s *Sim) RenameRepository(owner, repo, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	from := r.name
	if err := s.relocate(r, r.owner, to); err != nil {
		return err
	}
	s.emitRepository(r, "renamed", func(links) object { return object{"repository": object{"name": object{"from": from}}} })
	return nil
}

// TransferRepository moves a repository to another account. An installation of the App on all that account's
// repositories covers it from then on; the old one no longer does.
func (s *Sim) TransferRepository(owner, repo, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	from, before := r.owner, s.installationOn(r)
	if err := s.relocate(r, s.account(to, "Organization"), r.name); err != nil {
		return err
	}
	if before != nil {
		before.drop(r)
		s.emitSelection(before, "removed", r)
	}
	if now := s.installationOn(r); now != nil {
		s.emitSelection(now, "added", r)
	}
	s.emitRepository(r, "transferred", func(l links) object {
		kind := strings.ToLower(from.kind)
		return object{"owner": object{"from": object{kind: l.account(from)}}}
	})
	return nil
}

// DeleteRepository deletes a repository. Pull requests from it stay open, with no repository at their head.
func (s *Sim) DeleteRepository(owner, repo string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	s.emitRepository(r, "deleted", nil)
	delete(s.repositories, key(r.owner.login, r.name))
	for _, i := range s.installations {
		i.drop(r)
	}
	r.gone = true
	return nil
}

func (s *state) emitRepository(r *repository, action string, changes func(links) object) {
	s.emit(event{name: "repository", action: action, repo: r, payload: func(l links) object {
		if changes == nil {
			return object{}
		}
		return object{"changes": changes(l)}
	}})
}

func (s *changes) relocate(r *repository, owner *account, name string) error {
	to := key(owner.login, name)
	if s.repositories[to] != nil {
		return fmt.Errorf("repository %s/%s exists already", owner.login, name)
	}
	from := key(r.owner.login, r.name)
	delete(s.repositories, from)
	r.owner, r.name, r.updated = owner, name, s.now()
	s.register(r)
	s.moved[from] = r
	return nil
}

// register makes a repository known by its name. A redirect from that name ends.
func (s *state) register(r *repository) {
	at := key(r.owner.login, r.name)
	s.repositories[at] = r
	delete(s.moved, at)
}

// redirectMoved leads from an old name of a repository to its address by id. It is nil where the name is no old one, or
// the caller may not see the repository.
func (s *front) redirectMoved(rt route, c *call) *response {
	if rt.access.overGit() {
		return s.redirectClone(c)
	}
	owner, name := c.PathValue("owner"), c.PathValue("repo")
	r := s.moved[key(owner, name)]
	if owner == "" || rt.access.who == anyone || rt.access.who == browser || r == nil || r.gone || !s.canSee(c.caller, r) {
		return nil
	}
	to := fmt.Sprintf("%s/repositories/%d", c.links, r.id)
	if parts := strings.SplitN(c.URL.EscapedPath(), "/", 5); len(parts) == 5 {
		to += "/" + parts[4]
	}
	if c.URL.RawQuery != "" {
		to += "?" + c.URL.RawQuery
	}
	status := http.StatusMovedPermanently
	if rt.changes() {
		status = http.StatusTemporaryRedirect // or clients would make a GET of it
	}
	return &response{
		status: status, header: http.Header{"Location": {to}},
		body: object{"message": "Moved Permanently", "url": to, "documentation_url": "https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects"},
	}
}

// canSee reports whether a caller finds a repository at all.
func (s *state) canSee(by caller, r *repository) bool {
	switch {
	case r.public:
		return true
	case by.app:
		return s.installationOn(r) != nil
	}
	if by.user != nil {
		return s.sees(by.user.who, r)
	}
	return by.grant != nil && by.grant.covers(r)
}

var byIDPath = regexp.MustCompile(`^/repositories/([0-9]+)(/.+)$`)

// byName converts a path below /repositories/{id} to the same below /repos/{owner}/{repo}.
func (s *state) byName(path string) string {
	m := byIDPath.FindStringSubmatch(path)
	if m == nil {
		return path
	}
	id, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return path
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repositoryByID(id)
	if r == nil {
		return path
	}
	return "/repos/" + r.fullName() + m[2]
}

// network returns a repository, its forks and those it was forked from, the oldest first.
func (s *state) network(r *repository) []*repository {
	var all []*repository
	for _, other := range s.repositories {
		if other.root() == r.root() {
			all = append(all, other)
		}
	}
	slices.SortFunc(all, func(a, b *repository) int { return int(a.id - b.id) })
	return all
}
