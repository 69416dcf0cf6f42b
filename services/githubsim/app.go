package githubsim

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

func (l links) installation(s *state, i *installation) object {
	api := fmt.Sprintf("%s/app/installations/%d", l, i.id)
	var suspendedBy any
	if i.suspendedBy != nil {
		suspendedBy = l.account(i.suspendedBy)
	}
	return object{
		"id": i.id, "account": l.account(i.account), "repository_selection": i.selection(),
		"access_tokens_url": api + "/access_tokens", "repositories_url": string(l) + "/installation/repositories",
		"html_url": fmt.Sprintf("%s/organizations/%s/settings/installations/%d", l, i.account.login, i.id),
		"app_id":   s.config.AppID, "app_slug": s.config.AppSlug, "target_id": i.account.id, "target_type": i.account.kind,
		"permissions": s.config.Permissions, "events": s.config.Events, "single_file_name": nil,
		"has_multiple_single_files": false, "single_file_paths": []string{},
		"created_at": timestamp(i.created), "updated_at": timestamp(i.updated), "suspended_at": timestamp(i.suspended), "suspended_by": suspendedBy,
	}
}

func (s *appAPI) getApp(c *call) *response {
	app := c.links.app(s.state)
	app["installations_count"] = len(s.installations)
	return ok(app)
}

func (l links) app(s *state) object {
	return object{
		"id": s.config.AppID, "slug": s.config.AppSlug, "node_id": nodeID("Integration", s.config.AppID), "name": s.config.AppSlug,
		"owner": l.account(s.user(s.config.AppOwner)), "description": "", "external_url": string(l),
		"html_url": string(l) + "/apps/" + s.config.AppSlug, "permissions": s.config.Permissions,
		"events": s.config.Events, "created_at": timestamp(s.created), "updated_at": timestamp(s.created),
	}
}

func (s *appAPI) listInstallations(c *call) *response {
	return listPage(c, s.installations, func(i *installation) object { return c.links.installation(s.state, i) })
}

func (s *appAPI) getInstallation(c *call) *response {
	return s.showInstallation(c, s.installationByID(c))
}

func (s *appAPI) getOrgInstallation(c *call) *response {
	owner := s.findAccount(c.PathValue("org"))
	if owner == nil || owner.kind != "Organization" {
		return notFound()
	}
	return s.showInstallation(c, s.installationOf(owner))
}

func (s *appAPI) getUserInstallation(c *call) *response {
	return s.showInstallation(c, s.installationOf(s.findAccount(c.PathValue("user"))))
}

func (s *appAPI) getRepositoryInstallation(c *call) *response {
	r, _ := s.repositoryOf(c)
	if r == nil {
		return notFound()
	}
	return s.showInstallation(c, s.installationOn(r))
}

func (s *appAPI) showInstallation(c *call, i *installation) *response {
	if i == nil {
		return notFound()
	}
	return ok(c.links.installation(s.state, i))
}

func (s *state) installationByID(c *call) *installation {
	id := c.number("id")
	for _, i := range s.installations {
		if i.id == id {
			return i
		}
	}
	return nil
}

func (s *appAPI) createToken(c *call) *response {
	i := s.installationByID(c)
	switch {
	case i == nil:
		return notFound()
	case !i.suspended.IsZero():
		return suspended()
	}
	var want struct {
		Repositories  []string          `json:"repositories"`
		RepositoryIDs []int64           `json:"repository_ids"`
		Permissions   map[string]string `json:"permissions"`
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	g := &grant{installation: i, permissions: maps.Clone(s.config.Permissions), made: s.now(), expires: s.now().Add(s.config.TokenLife)}
	if len(want.Permissions) > 0 {
		g.permissions = map[string]string{"metadata": "read"} // always comes along
		for permission, level := range want.Permissions {
			if !allows(s.config.Permissions, permission, level) {
				return refuse(http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation.")
			}
			g.permissions[permission] = level
		}
	}
	for _, name := range want.Repositories {
		g.repositories = append(g.repositories, s.repositories[key(i.account.login, name)])
	}
	for _, id := range want.RepositoryIDs {
		g.repositories = append(g.repositories, s.repositoryByID(id))
	}
	if slices.ContainsFunc(g.repositories, func(r *repository) bool { return r == nil || !i.covers(r) }) {
		return refuse(http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.")
	}
	token := "ghs_" + (rand.Text() + rand.Text())[:36]
	s.tokens[token] = g
	answer := object{"token": token, "expires_at": timestamp(g.expires), "permissions": g.permissions, "repository_selection": i.selection()}
	if g.repositories != nil {
		answer["repository_selection"] = "selected"
		answer["repositories"] = each(g.repositories, c.links.repository)
	}
	return &response{status: http.StatusCreated, body: answer}
}

func (s *appAPI) listInstallationRepositories(c *call) *response {
	all := c.caller.grant.repositories
	if all == nil {
		all = s.repositoriesOf(c.caller.grant.installation)
	}
	some, header := page(c, usualPage, all)
	return &response{status: http.StatusOK, header: header, body: object{
		"total_count": len(all), "repository_selection": c.caller.grant.selection(), "repositories": each(some, c.links.repository),
	}}
}
