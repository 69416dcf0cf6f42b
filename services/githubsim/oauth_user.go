package githubsim

import (
	"crypto/subtle"
	"net/http"
	"slices"
)

// userAPI is the part of the REST API that is asked as a person, and by the App's client of what persons allowed it.
type userAPI struct{ *changes }

// sees reports whether the App may see a repository for a person: it is public, or the App is installed on it and the
// person may read it.
func (s *state) sees(who *account, r *repository) bool {
	return r.public || roles[r.role(who)] != "none" && s.installationOn(r) != nil
}

// admitUser refuses a person's call that the person, or the App, may not make.
func (s *front) admitUser(a access, c *call, r *repository, named bool) *response {
	who := c.caller.user.who
	switch {
	case !named:
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	case r == nil || !s.sees(who, r):
		return refuse(http.StatusNotFound, "Not Found")
	case a.level == "read" && r.public:
	case !a.allowed(s.config.Permissions):
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	case a.level == "write" && (s.installationOn(r) == nil || !slices.Contains([]string{"write", "admin"}, roles[r.role(who)])):
		return refuse(http.StatusForbidden, "Must have write access to Repository.")
	}
	c.repo = r
	return nil
}

// permissionsOf is what GitHub shows a person of what they may do in a repository.
func permissionsOf(r *repository, who *account) object {
	role := r.role(who)
	atLeast := func(least string) bool {
		order := []string{"none", "read", "triage", "write", "maintain", "admin"}
		return slices.Index(order, role) >= slices.Index(order, least)
	}
	return object{
		"admin": atLeast("admin"), "maintain": atLeast("maintain"), "push": atLeast("write"), "triage": atLeast("triage"),
		"pull": atLeast("read") || r.public,
	}
}

func (s *userAPI) getUser(c *call) *response {
	shown := c.links.account(c.caller.user.who)
	shown["name"], shown["email"] = nil, nil
	return ok(shown)
}

// listInstallations lists those with a repository that the person may read.
func (s *userAPI) listInstallations(c *call) *response {
	var all []*installation
	for _, i := range s.installations {
		if len(s.readable(c, i)) > 0 {
			all = append(all, i)
		}
	}
	some, header := page(c, usualPage, all)
	return &response{status: http.StatusOK, header: header, body: object{
		"total_count": len(all), "installations": each(some, func(i *installation) object { return c.links.installation(s.state, i) }),
	}}
}

func (s *userAPI) readable(c *call, i *installation) []*repository {
	return slices.DeleteFunc(s.repositoriesOf(i), func(r *repository) bool { return roles[r.role(c.caller.user.who)] == "none" })
}

func (s *userAPI) listRepositories(c *call) *response {
	n := slices.IndexFunc(s.installations, func(i *installation) bool { return i.id == c.number("id") })
	if n < 0 {
		return notFound()
	}
	all := s.readable(c, s.installations[n])
	some, header := page(c, usualPage, all)
	return &response{status: http.StatusOK, header: header, body: object{
		"total_count": len(all), "repositories": each(some, func(r *repository) object {
			shown := c.links.repository(r)
			shown["permissions"] = permissionsOf(r, c.caller.user.who)
			return shown
		}),
	}}
}

// getMembership needs the permission "members" of the App, which must be installed for the organization.
func (s *userAPI) getMembership(c *call) *response {
	org, who := s.findAccount(c.PathValue("org")), s.findAccount(c.PathValue("user"))
	foreign := c.caller.grant != nil && s.installationOf(org) != c.caller.grant.installation
	if org == nil || foreign || s.installationOf(org) == nil || !allows(s.config.Permissions, "members", "read") {
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	}
	if who == nil || !slices.Contains(s.people.teams[key(c.PathValue("org"), c.PathValue("team"))], who) {
		return notFound()
	}
	return ok(object{"state": "active", "role": "member", "url": string(c.links) + c.URL.Path})
}

// revoke ends one token, or all that its person has authorized, as the App's client asks.
func (s *userAPI) revoke(all bool) func(*call) *response {
	return func(c *call) *response {
		id, secret, _ := c.BasicAuth()
		known := s.config.OAuth
		if known.ClientID == "" || id != known.ClientID || c.PathValue("client") != id ||
			subtle.ConstantTimeCompare([]byte(secret), []byte(known.ClientSecret)) != 1 {
			return notFound()
		}
		var body struct {
			Token string `json:"access_token"`
		}
		if refusal := c.decode(&body); refusal != nil {
			return refusal
		}
		a := s.people.tokens[body.Token]
		if a == nil {
			return notFound()
		}
		delete(s.people.tokens, body.Token)
		if all {
			s.people.revoke(a.who)
		}
		return &response{status: http.StatusNoContent}
	}
}
