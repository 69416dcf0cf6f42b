package githubsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An event is what a webhook is sent about. Repository, installation and sender are added to its payload.
type event struct {
	name, action string
	installation *installation // the one on the repository if nil
	repo         *repository
	sender       *account // "octocat" if nil
	payload      func(links) object
}

// emit sends an event to the App, unless the App is not installed there or is suspended.
func (s *state) emit(e event) {
	if e.installation == nil {
		if e.installation = s.installationOn(e.repo); e.installation == nil {
			return
		}
	}
	unasked := e.name == "installation" || e.name == "installation_repositories"
	if !e.installation.suspended.IsZero() && e.name != "installation" || !unasked && !slices.Contains(s.config.Events, e.name) {
		return
	}
	if e.sender == nil {
		e.sender = s.user("")
	}
	l := links(s.config.URL)
	body := e.payload(l)
	if e.action != "" {
		body["action"] = e.action
	}
	body["sender"] = l.account(e.sender)
	d := &Delivery{ID: s.id(), Event: e.name, Action: e.action, Installation: e.installation.id, At: s.now()}
	if e.repo != nil {
		d.Repository = e.repo.id
		if body["repository"] == nil {
			body["repository"] = l.repository(e.repo)
		}
		if e.repo.owner.kind == "Organization" {
			body["organization"] = l.organization(e.repo.owner)
		}
	}
	if body["installation"] == nil {
		body["installation"] = object{"id": e.installation.id, "node_id": nodeID("IntegrationInstallation", e.installation.id)}
	}
	d.Payload = encode(body)
	s.hooks.queue(d)
}

// Ping sends the event by which GitHub tests a webhook.
func (s *Controls) Ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ping()
}

func (s *state) ping() {
	body := encode(object{
		"zen": "Keep it logically awesome.", "hook_id": hookID,
		"hook": object{
			"type": "App", "id": hookID, "name": "web", "active": true, "events": s.config.Events, "app_id": s.config.AppID,
			"config":     object{"content_type": "json", "insecure_ssl": "0", "secret": "********", "url": s.hooks.address()},
			"created_at": timestamp(s.now()), "updated_at": timestamp(s.now()), "deliveries_url": s.config.URL + "/app/hook/deliveries",
		},
	})
	s.hooks.queue(&Delivery{ID: s.id(), Event: "ping", At: s.now(), Payload: body})
}

func (s *state) emitPull(p *pull, action string, by *account, more object) {
	s.emit(event{name: "pull_request", action: action, repo: p.base.repo, sender: by, payload: func(l links) object {
		body := object{"number": p.number, "pull_request": l.wholePull(p)}
		maps.Copy(body, more)
		return body
	}})
}

// emitPush sends the push of a branch or tag. from is empty for a new one, to for one that was deleted. GitHub shows the
// repository in an older form here, with times in seconds.
func (s *state) emitPush(r *repository, ref, from, to string, by *account) {
	s.emit(event{name: "push", repo: r, sender: by, payload: func(l links) object {
		repo := l.repository(r)
		repo["url"], repo["created_at"], repo["pushed_at"] = repo["html_url"], r.created.Unix(), r.pushed.Unix()
		repo["stargazers"], repo["master_branch"] = 0, r.defaultBranch
		owner := l.account(r.owner)
		owner["name"], owner["email"] = r.owner.login, nil
		repo["owner"] = owner

		body := object{
			"ref": ref, "before": r.objectAt(ref, from), "after": r.objectAt(ref, to), "created": from == "", "deleted": to == "", "forced": to == "", "base_ref": nil,
			"commits": []object{}, "head_commit": nil, "repository": repo, "pusher": object{"name": by.login, "email": by.email()},
		}
		var compare string
		known := from
		switch {
		case from == "":
			body["before"], known = noCommit, r.refs["refs/heads/"+r.defaultBranch]
			compare = strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
		case to == "":
			body["after"] = noCommit
			compare = from[:12] + "..." + noCommit[:12]
		default:
			body["forced"] = !r.commits.reachable(to)[from]
			compare = from[:12] + "..." + to[:12]
		}
		body["compare"] = fmt.Sprintf("%s/compare/%s", repo["html_url"], compare)
		if to != "" {
			body["commits"] = each(r.commits.between(known, to), func(c *commit) object { return l.pushed(r, c) })
			body["head_commit"] = l.pushed(r, r.commits[to])
		}
		return body
	}})
}

// pushed shows a commit as a push does.
func (l links) pushed(r *repository, c *commit) object {
	var before tree
	if len(c.parents) > 0 {
		before = r.commits[c.parents[0]].tree()
	}
	paths := map[string][]string{"added": {}, "removed": {}, "modified": {}}
	for _, ch := range diff(before, c.tree()) {
		paths[ch.status()] = append(paths[ch.status()], ch.path)
	}
	by := object{"name": c.author.login, "email": c.author.email(), "username": c.author.login}
	return object{
		"id": c.sha, "tree_id": c.treeSHA, "distinct": true, "message": c.message, "timestamp": timestamp(c.time),
		"url": string(l) + "/" + r.fullName() + "/commit/" + c.sha, "author": by, "committer": by,
		"added": paths["added"], "removed": paths["removed"], "modified": paths["modified"],
	}
}
