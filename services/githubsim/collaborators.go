package githubsim

import (
	"fmt"
	"net/http"
	"slices"
)

// roles are what people may be to a repository, and the permission that each amounts to.
var roles = map[string]string{
	"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read", "none": "none",
}

// SetPermission gives a person a role in a repository: admin, maintain, write, triage, read or none. Without one the
// owner and octocat are admins, who has put a commit on one of its branches may write, and others may read what is public.
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
	r.give(s.user(login), role)
	return nil
}

func (r *repository) give(who *account, role string) {
	if r.collaborators == nil {
		r.collaborators = map[*account]string{}
	}
	r.collaborators[who] = role
}

// welcome lets who pushes write, as they evidently may.
func (r *repository) welcome(who *account) {
	if !slices.Contains([]string{"admin", "write"}, roles[r.role(who)]) {
		r.give(who, "write")
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

// association is what somebody is to a repository, as its comments and pull requests say.
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

// getPermission knows people alone: GitHub answers 404 for bots.
func (s *codeAPI) getPermission(c *call) *response {
	who := s.known(c.PathValue("user"))
	if who == nil || who.kind != "User" || s.late(who.since) {
		return refuse(http.StatusNotFound, c.PathValue("user")+" is not a user")
	}
	role := c.repo.role(who)
	return ok(object{"permission": roles[role], "role_name": role, "user": c.links.account(who)})
}
