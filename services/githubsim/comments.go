package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

const maxBody = 65_536 // characters of a comment

// A Comment is one on a pull request.
type Comment struct {
	ID        int64
	Author    string
	Body      string
	Created   time.Time
	Reactions []string // as "+1" or "eyes", the oldest first
}

type comment struct {
	id               int64
	pull             *pull
	author           *account
	body             string
	created, updated time.Time
	reactions        []*reaction
}

type reaction struct {
	id      int64
	author  *account
	content string
	created time.Time
}

// Comment adds a comment of somebody, octocat if author is empty, to a pull request.
func (s *Sim) Comment(owner, repo string, number int, author, body string) (id int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return 0, err
	}
	return s.addComment(p, s.user(author), body).id, nil
}

// Comments lists the comments on a pull request, the oldest first.
func (s *Sim) Comments(owner, repo string, number int) ([]Comment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findPull(owner, repo, number)
	if err != nil {
		return nil, err
	}
	var list []Comment
	for _, one := range p.base.repo.commentsOn(number) {
		public := Comment{ID: one.id, Author: one.author.login, Body: one.body, Created: one.created}
		for _, r := range one.reactions {
			public.Reactions = append(public.Reactions, r.content)
		}
		list = append(list, public)
	}
	return list, nil
}

func (s *changes) addComment(p *pull, by *account, body string) *comment {
	one := &comment{id: s.id(), pull: p, author: by, body: body, created: s.now(), updated: s.now()}
	p.base.repo.comments = append(p.base.repo.comments, one)
	p.updated = one.created
	s.emitComment(one, "created", by, nil)
	return one
}

func (s *state) emitComment(one *comment, action string, by *account, changes object) {
	s.emit(event{name: "issue_comment", action: action, repo: one.pull.base.repo, sender: by, payload: func(l links) object {
		body := object{"issue": l.issue(one.pull), "comment": l.comment(one)}
		if changes != nil {
			body["changes"] = changes
		}
		return body
	}})
}

func (r *repository) commentsOn(number int) []*comment {
	var found []*comment
	for _, one := range r.comments {
		if one.pull.number == number {
			found = append(found, one)
		}
	}
	return found
}

// listComments answers issues/{number}/comments, and 404 to any other list of an issue. A pattern that named comments
// would conflict with that of issues/comments/{id}.
func (s *pullAPI) listComments(c *call) *response {
	p := c.repo.pull(int(c.number("number")))
	if p == nil || c.PathValue("list") != "comments" {
		return notFound()
	}
	return listPage(c, c.repo.commentsOn(p.number), c.links.comment)
}

func (s *pullAPI) createComment(c *call) *response {
	p := c.repo.pull(int(c.number("number")))
	if p == nil {
		return notFound()
	}
	body, refusal := readBody(c)
	if refusal != nil {
		return refusal
	}
	one := s.addComment(p, s.bot(), body)
	return &response{status: http.StatusCreated, body: c.links.comment(one), header: http.Header{
		"Location": {fmt.Sprintf("%s/repos/%s/issues/comments/%d", c.links, c.repo.fullName(), one.id)},
	}}
}

func readBody(c *call) (string, *response) {
	var want struct{ Body string }
	if refusal := c.decode(&want); refusal != nil {
		return "", refusal
	}
	switch {
	case want.Body == "":
		return "", invalid("IssueComment", "body", "missing_field", "Body cannot be blank")
	case len([]rune(want.Body)) > maxBody:
		return "", invalid("IssueComment", "body", "custom", fmt.Sprintf("body is too long (maximum is %d characters)", maxBody))
	}
	return want.Body, nil
}

func (s *pullAPI) getComment(c *call) *response {
	one := c.repo.comment(c.number("id"))
	if one == nil {
		return notFound()
	}
	return ok(c.links.comment(one))
}

func (s *pullAPI) updateComment(c *call) *response {
	one := c.repo.comment(c.number("id"))
	if one == nil {
		return notFound()
	}
	body, refusal := readBody(c)
	if refusal != nil {
		return refusal
	}
	changes := object{"body": object{"from": one.body}}
	one.body, one.updated = body, s.now()
	s.emitComment(one, "edited", s.bot(), changes)
	return ok(c.links.comment(one))
}

func (r *repository) comment(id int64) *comment {
	i := slices.IndexFunc(r.comments, func(one *comment) bool { return one.id == id })
	if i < 0 {
		return nil
	}
	return r.comments[i]
}

func (s *pullAPI) listReactions(c *call) *response {
	one := c.repo.comment(c.number("id"))
	if one == nil {
		return notFound()
	}
	return listPage(c, one.reactions, c.links.reaction)
}

// createReaction answers 200 where the App has reacted so already.
func (s *pullAPI) createReaction(c *call) *response {
	one := c.repo.comment(c.number("id"))
	if one == nil {
		return notFound()
	}
	var want struct{ Content string }
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	if !slices.Contains([]string{"+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"}, want.Content) {
		return invalid("Reaction", "content", "invalid", "")
	}
	for _, r := range one.reactions {
		if r.content == want.Content && r.author == s.bot() {
			return ok(c.links.reaction(r))
		}
	}
	r := &reaction{id: s.id(), author: s.bot(), content: want.Content, created: s.now()}
	one.reactions = append(one.reactions, r)
	return &response{status: http.StatusCreated, body: c.links.reaction(r)}
}

func (l links) reaction(r *reaction) object {
	return object{
		"id": r.id, "node_id": nodeID("Reaction", r.id), "user": l.account(r.author), "content": r.content, "created_at": timestamp(r.created),
	}
}

func (l links) comment(one *comment) object {
	r := one.pull.base.repo
	api := fmt.Sprintf("%s/repos/%s/issues", l, r.fullName())
	self := fmt.Sprintf("%s/comments/%d", api, one.id)
	return object{
		"id": one.id, "node_id": nodeID("IssueComment", one.id), "url": self,
		"html_url":  fmt.Sprintf("%s/%s/pull/%d#issuecomment-%d", l, r.fullName(), one.pull.number, one.id),
		"issue_url": fmt.Sprintf("%s/%d", api, one.pull.number), "user": l.account(one.author), "body": one.body,
		"created_at": timestamp(one.created), "updated_at": timestamp(one.updated),
		"author_association": r.association(one.author), "performed_via_github_app": nil,
	}
}

// issue shows a pull request as an event about a comment on it does.
func (l links) issue(p *pull) object {
	full, r := l.pull(p), p.base.repo
	api := fmt.Sprintf("%s/repos/%s", l, r.fullName())
	self := fmt.Sprintf("%s/issues/%d", api, p.number)
	issue := object{
		"url": self, "repository_url": api, "labels_url": self + "/labels{/name}", "comments_url": self + "/comments",
		"events_url": self + "/events", "comments": len(r.commentsOn(p.number)), "state_reason": nil,
		"pull_request": object{
			"url": full["url"], "html_url": full["html_url"], "diff_url": full["diff_url"], "patch_url": full["patch_url"],
			"merged_at": full["merged_at"],
		},
	}
	for _, name := range []string{
		"html_url", "id", "node_id", "number", "title", "user", "labels", "state", "locked", "assignee", "assignees", "milestone", "draft",
		"created_at", "updated_at", "closed_at", "author_association", "active_lock_reason", "body",
	} {
		issue[name] = full[name]
	}
	return issue
}
