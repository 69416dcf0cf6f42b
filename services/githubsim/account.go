package githubsim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// An account is an organization, a person or the App's bot.
type account struct {
	id    int64
	login string
	kind  string    // Organization, User or Bot
	since time.Time // when it was first heard of
	mail  string    // of one whom git alone knows, by name and address; its id is 0
}

func (a *account) email() string {
	if a.mail != "" {
		return a.mail
	}
	return fmt.Sprintf("%d+%s@users.noreply.github.com", a.id, a.login)
}

// account finds an account by its login, whatever the case of its letters, or makes one.
func (s *state) account(login, kind string) *account {
	known := s.findAccount(login)
	if known == nil {
		known = &account{id: s.id(), login: login, kind: kind, since: s.now()}
		s.accounts[strings.ToLower(login)] = known
	}
	return known
}

// findAccount returns nil where nobody has that login.
func (s *state) findAccount(login string) *account { return s.accounts[strings.ToLower(login)] }

func (s *state) user(login string) *account {
	if login == "" {
		login = "octocat"
	}
	if strings.HasSuffix(login, "[bot]") { // no person's login has brackets
		return s.account(login, "Bot")
	}
	return s.account(login, "User")
}

func (s *state) bot() *account { return s.account(s.config.AppSlug+"[bot]", "Bot") }

// links is the root of the addresses in a response. Its methods show each kind of thing as GitHub's JSON.
type links string

// linksTo returns the root that a request was sent to.
func linksTo(r *http.Request) links {
	if r.TLS != nil {
		return links("https://" + r.Host)
	}
	return links("http://" + r.Host)
}

func nodeID(kind string, id int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "0%d:%s%d", len(kind), kind, id))
}

// urls adds addresses to an object: by field, base and a suffix.
func (into object) urls(base string, suffixes map[string]string) object {
	for name, suffix := range suffixes {
		into[name] = base + suffix
	}
	return into
}

func (l links) account(a *account) object {
	api := string(l) + "/users/" + a.login
	return object{
		"login": a.login, "id": a.id, "node_id": nodeID(a.kind, a.id), "gravatar_id": "", "type": a.kind,
		"site_admin": false, "avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", l, a.id),
		"url": api, "html_url": string(l) + "/" + a.login,
	}.urls(api, map[string]string{
		"followers_url":       "/followers",
		"following_url":       "/following{/other_user}",
		"gists_url":           "/gists{/gist_id}",
		"starred_url":         "/starred{/owner}{/repo}",
		"subscriptions_url":   "/subscriptions",
		"organizations_url":   "/orgs",
		"repos_url":           "/repos",
		"events_url":          "/events{/privacy}",
		"received_events_url": "/received_events",
	})
}

// organization is the shorter form that webhooks carry beside the repository.
func (l links) organization(a *account) object {
	api := string(l) + "/orgs/" + a.login
	return object{
		"login": a.login, "id": a.id, "node_id": nodeID(a.kind, a.id), "url": api, "description": nil,
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", l, a.id),
	}.urls(api, map[string]string{
		"repos_url":          "/repos",
		"events_url":         "/events",
		"hooks_url":          "/hooks",
		"issues_url":         "/issues",
		"members_url":        "/members{/member}",
		"public_members_url": "/public_members{/member}",
	})
}
