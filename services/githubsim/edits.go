package githubsim

import (
	"fmt"
	"net/url"
	"slices"
)

// ChangeBase changes the branch that a pull request goes into.
func (s *Sim) ChangeBase(owner, repo string, number int, base string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return err
	}
	if p.base.repo.branch(base) == nil {
		return fmt.Errorf("change the base of %s#%d: there is no branch %s", p.base.repo.fullName(), number, base)
	}
	s.edit(p, pullEdit{Base: &base}, s.user(""))
	return nil
}

// Label puts a label on a pull request, or takes it off.
func (s *Sim) Label(owner, repo string, number int, label string, on bool) error {
	if on {
		return s.mark(owner, repo, number, "labeled", label, func(p *pull) { p.labels = append(p.labels, label) })
	}
	return s.mark(owner, repo, number, "unlabeled", label, func(p *pull) {
		p.labels = slices.DeleteFunc(slices.Clone(p.labels), func(has string) bool { return has == label })
	})
}

// SetDraft makes a draft of a pull request, or has it ready for review.
func (s *Sim) SetDraft(owner, repo string, number int, draft bool) error {
	action := "ready_for_review"
	if draft {
		action = "converted_to_draft"
	}
	return s.mark(owner, repo, number, action, "", func(p *pull) { p.draft = draft })
}

// mark changes what a pull request is marked with and sends the event of it.
func (s *changes) mark(owner, repo string, number int, action, label string, change func(*pull)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return err
	}
	change(p)
	p.updated = s.now()
	s.emit(event{name: "pull_request", action: action, repo: p.base.repo, payload: func(l links) object {
		body := object{"number": p.number, "pull_request": l.wholePull(p)}
		if label != "" {
			body["label"] = l.label(p.base.repo, label)
		}
		return body
	}})
	return nil
}

// A pullEdit is what to change of a pull request; a field that is nil stays as it is.
type pullEdit struct{ Title, Body, Base *string }

// edit changes a pull request and sends one event about all of it.
func (s *changes) edit(p *pull, want pullEdit, by *account) {
	changes := object{}
	if want.Title != nil && *want.Title != p.title {
		changes["title"] = object{"from": p.title}
		p.title = *want.Title
	}
	if want.Body != nil && *want.Body != p.body {
		changes["body"] = object{"from": p.body}
		p.body = *want.Body
	}
	if want.Base != nil && *want.Base != p.base.branch {
		changes["base"] = object{"ref": object{"from": p.base.branch}, "sha": object{"from": p.base.sha}}
		s.leaveQueue(p, by)
		p.base.branch, p.base.sha = *want.Base, p.base.repo.branch(*want.Base).sha
		p.refresh()
	}
	if len(changes) == 0 {
		return
	}
	p.updated = s.now()
	s.emitPull(p, "edited", by, object{"changes": changes})
}

// updatePull sends one `edited` for title, body and base together, and another event for a change of state.
func (s *pullAPI) updatePull(c *call) *response {
	p := c.repo.pull(int(c.number("number")))
	if p == nil {
		return notFound()
	}
	var want struct {
		pullEdit
		State *string
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	switch {
	case want.Title != nil && *want.Title == "":
		return invalid("PullRequest", "title", "missing_field", "")
	case want.Base != nil && c.repo.branch(*want.Base) == nil:
		return invalid("PullRequest", "base", "invalid", "")
	case want.State != nil && *want.State != "open" && *want.State != "closed":
		return invalid("PullRequest", "state", "invalid", "")
	case want.State != nil && *want.State == "open" && !p.reopens():
		return invalid("PullRequest", "state", "invalid", "state cannot be changed. The pull request cannot be reopened.")
	}
	s.edit(p, want.pullEdit, s.bot())
	if want.State != nil && *want.State != p.state {
		s.setState(p, *want.State, s.bot())
	}
	return ok(c.links.wholePull(p))
}

// listCommitPulls lists the pull requests that hold a commit, or were merged as it.
func (s *pullAPI) listCommitPulls(c *call) *response {
	at := s.read(c.repo, c.PathValue("ref"))
	if at == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	var found []*pull
	for _, p := range c.repo.pulls {
		if p.mergedAs == at.sha || p.holds(at.sha) {
			found = append(found, p)
		}
	}
	return listPage(c, found, c.links.pull)
}

func (p *pull) holds(sha string) bool {
	for _, one := range p.commits() {
		if one.sha == sha {
			return true
		}
	}
	return false
}

func (l links) label(r *repository, name string) object {
	return object{
		"id": r.id, "node_id": nodeID("Label", r.id), "url": fmt.Sprintf("%s/repos/%s/labels/%s", l, r.fullName(), url.PathEscape(name)),
		"name": name, "color": "ededed", "default": false, "description": nil,
	}
}
