package githubsim

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// An installation is the App on one account, on all of its repositories.
type installation struct {
	id      int64
	account *account
	created time.Time
	updated time.Time
}

func (i *installation) covers(r *repository) bool { return i.account == r.owner }

// AddInstallation installs the App for an organization, on all its repositories, and says so by webhook.
// An owner who has it already gets the same id.
func (s *Sim) AddInstallation(owner string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.account(owner, "Organization")
	if known := s.installationOf(who); known != nil {
		return known.id
	}
	i := &installation{id: s.id(), account: who, created: s.now(), updated: s.now()}
	s.installations = append(s.installations, i)
	s.emit(event{name: "installation", action: "created", installation: i, payload: func(l links) object {
		full := l.installation(s, i)
		full["created_at"], full["updated_at"] = i.created.Unix(), i.updated.Unix()
		return object{"installation": full, "repositories": each(s.repositoriesOf(i), l.repositoryName), "requester": nil}
	}})
	return i.id
}

func (s *Sim) installationOf(owner *account) *installation {
	for _, i := range s.installations {
		if i.account == owner {
			return i
		}
	}
	return nil
}

func (s *Sim) repositoriesOf(i *installation) []*repository {
	var found []*repository
	for _, r := range s.repositories {
		if i.covers(r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *repository) int { return int(a.id - b.id) })
	return found
}

// subscriptions are the events the App asked for; those about installations come unasked.
func subscriptions() []string {
	return []string{"check_run", "check_suite", "issue_comment", "merge_group", "pull_request", "push", "repository"}
}

func (l links) installation(s *Sim, i *installation) object {
	api := fmt.Sprintf("%s/app/installations/%d", l, i.id)
	return object{
		"id": i.id, "account": l.account(i.account), "repository_selection": "all",
		"access_tokens_url": api + "/access_tokens", "repositories_url": string(l) + "/installation/repositories",
		"html_url": fmt.Sprintf("%s/organizations/%s/settings/installations/%d", l, i.account.login, i.id),
		"app_id":   s.config.AppID, "app_slug": s.config.AppSlug, "target_id": i.account.id, "target_type": i.account.kind,
		"permissions": s.config.Permissions, "events": subscriptions(), "single_file_name": nil,
		"has_multiple_single_files": false, "single_file_paths": []string{},
		"created_at": timestamp(i.created), "updated_at": timestamp(i.updated), "suspended_at": nil, "suspended_by": nil,
	}
}

func (s *Sim) getApp(c *call) *response {
	return ok(object{
		"id": s.config.AppID, "slug": s.config.AppSlug, "node_id": nodeID("Integration", s.config.AppID), "name": s.config.AppSlug,
		"owner": c.links.account(s.user("")), "description": "", "external_url": string(c.links),
		"html_url": string(c.links) + "/apps/" + s.config.AppSlug, "permissions": s.config.Permissions,
		"events": subscriptions(), "installations_count": len(s.installations),
	})
}

func (s *Sim) listInstallations(c *call) *response {
	return listed(c, s.installations, func(i *installation) object { return c.links.installation(s, i) })
}

func (s *Sim) getInstallation(c *call) *response { return s.showInstallation(c, s.installationByID(c)) }

func (s *Sim) getOrgInstallation(c *call) *response {
	owner := s.accounts[strings.ToLower(c.PathValue("org"))]
	if owner == nil || owner.kind != "Organization" {
		return notFound()
	}
	return s.showInstallation(c, s.installationOf(owner))
}

func (s *Sim) getUserInstallation(c *call) *response {
	return s.showInstallation(c, s.installationOf(s.accounts[strings.ToLower(c.PathValue("user"))]))
}

func (s *Sim) getRepositoryInstallation(c *call) *response {
	r, _ := s.repositoryOf(c)
	if r == nil {
		return notFound()
	}
	return s.showInstallation(c, s.installationOf(r.owner))
}

func (s *Sim) showInstallation(c *call, i *installation) *response {
	if i == nil {
		return notFound()
	}
	return ok(c.links.installation(s, i))
}

func (s *Sim) installationByID(c *call) *installation {
	id := c.number("id")
	for _, i := range s.installations {
		if i.id == id {
			return i
		}
	}
	return nil
}

func (s *Sim) createToken(c *call) *response {
	i := s.installationByID(c)
	if i == nil {
		return notFound()
	}
	var want struct {
		Repositories  []string          `json:"repositories"`
		RepositoryIDs []int64           `json:"repository_ids"`
		Permissions   map[string]string `json:"permissions"`
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	g := &grant{installation: i, permissions: maps.Clone(s.config.Permissions), expires: s.now().Add(s.config.TokenLife)}
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
	answer := object{"token": token, "expires_at": timestamp(g.expires), "permissions": g.permissions, "repository_selection": "all"}
	if g.repositories != nil {
		answer["repository_selection"] = "selected"
		answer["repositories"] = each(g.repositories, c.links.repository)
	}
	return &response{status: http.StatusCreated, body: answer}
}

func (s *Sim) listInstallationRepositories(c *call) *response {
	all := c.caller.grant.repositories
	if all == nil {
		all = s.repositoriesOf(c.caller.grant.installation)
	}
	some, header := page(c, usualPage, all)
	return &response{status: http.StatusOK, header: header, body: object{
		"total_count": len(all), "repository_selection": "all", "repositories": each(some, c.links.repository),
	}}
}
