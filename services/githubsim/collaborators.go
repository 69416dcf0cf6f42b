package githubsim

import (
	"fmt"
	"net/http"
	"slices"
)

// roles are those that people can have in a repository, each with the permission that it includes.
var roles = map[string]string{
	"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read", "none": "none",
}

// SetPermission gives a person a role in a repository: admin, maintain, write, triage, read or none. Somebody
// who was given none is an admin if owner or octocat, may write after a commit to one of its branches, and else may read
// what is public.
func (s *Controls) SetPermission(owner, repo, login, role string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	if roles[role] == "" {
		return fmt.Errorf("%s in %s: there is no role %q; there are admin, maintain, write, triage, read and none", login, r.fullName(), role)
	}
	r.setRole(s.user(login), role)
	return nil
}

func (r *repository) setRole(who *account, role string) {
	if r.collaborators == nil {
		r.collaborators = map[*account]string{}
	}
	r.collaborators[who] = role
}

// letWrite gives write access to somebody who pushes, unless they have it.
func (r *repository) letWrite(who *account) {
	if !slices.Contains([]string{"admin", "write"}, roles[r.role(who)]) {
		r.setRole(who, "write")
	}
}

func (r *repository) role(who *account) string {
	switch given := r.collaborators[who]; {
	case given != "":
		return given
	case who == r.owner, who.login == "octocat":
		return "admin"
	case r.public:
		return "read"
	}
	return "none"
}

// association is the author_association of somebody in comments and pull requests.
func (r *repository) association(who *account) string {
	switch permission := roles[r.role(who)]; {
	case who == r.owner:
		return "OWNER"
	case who.kind == "Bot":
		return "CONTRIBUTOR"
	case permission == "admin", permission == "write":
		return "MEMBER"
	}
	return "NONE"
}

// getPermission answers 404 for bots, as GitHub does.
func (s *codeAPI) getPermission(c *call) *response {
	who := s.findAccount(c.PathValue("user"))
	if who == nil || who.kind != "User" || s.late(who.since) {
		return refuse(http.StatusNotFound, c.PathValue("user")+" is not a user")
	}
	role := c.repo.role(who)
	return ok(object{"permission": roles[role], "role_name": role, "user": c.links.account(who)})
}
