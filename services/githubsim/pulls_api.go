package githubsim

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

const maxPullFiles = 3000

func (s *pullAPI) listPulls(c *call) *response {
	query := c.URL.Query()
	state := query.Get("state")
	if state == "" {
		state = "open"
	}
	var found []*pull
	for _, p := range s.readPulls(c.repo.pulls) {
		if (state == "all" || p.state == state) &&
			(query.Get("head") == "" || strings.EqualFold(p.head.label(), query.Get("head"))) &&
			(query.Get("base") == "" || p.base.branch == query.Get("base")) {
			found = append(found, p)
		}
	}
	byCreation := query.Get("sort") == "" || query.Get("sort") == "created"
	if query.Get("sort") == "updated" {
		slices.SortStableFunc(found, func(a, b *pull) int { return a.updated.Compare(b.updated) })
	}
	if direction := query.Get("direction"); direction == "desc" || direction == "" && byCreation {
		slices.Reverse(found)
	}
	return listPage(c, found, c.links.pull)
}

func (s *pullAPI) getPull(c *call) *response {
	p := s.readPull(c.repo.pull(int(c.number("number"))))
	if p == nil {
		return notFound()
	}
	return ok(c.links.wholePull(p))
}

func (s *pullAPI) createPull(c *call) *response {
	var want struct {
		Title, Head, Base, Body string
		Draft                   bool
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	if refusal := refuseText("PullRequest", text{"title", want.Title, maxTitle, false}, text{"body", want.Body, maxBody, false}); refusal != nil {
		return refusal
	}
	p, refusal := s.open(c.repo, PullRequest{Title: want.Title, Head: want.Head, Base: want.Base, Body: want.Body, Draft: want.Draft}, s.bot())
	if refusal != nil {
		return refusal
	}
	return &response{status: http.StatusCreated, body: c.links.wholePull(p), header: http.Header{
		"Location": {fmt.Sprintf("%s/repos/%s/pulls/%d", c.links, c.repo.fullName(), p.number)},
	}}
}

func (s *pullAPI) listPullFiles(c *call) *response {
	p := s.readPull(c.repo.pull(int(c.number("number"))))
	if p == nil {
		return notFound()
	}
	changes := p.changes()
	return listPage(c, changes[:min(len(changes), maxPullFiles)], func(ch change) object { return c.links.changedFile(c.repo, p.head.sha, ch) })
}

// pull shows a pull request as lists do.
func (l links) pull(p *pull) object {
	r := p.base.repo
	api, html := fmt.Sprintf("%s/repos/%s", l, r.fullName()), fmt.Sprintf("%s/%s/pull/%d", l, r.fullName(), p.number)
	self, issue := fmt.Sprintf("%s/pulls/%d", api, p.number), fmt.Sprintf("%s/issues/%d", api, p.number)
	statuses := api + "/statuses/" + p.head.sha
	var body, mergeSHA any
	if p.body != "" {
		body = p.body
	}
	if p.mergedAs != "" {
		mergeSHA = p.mergedAs
	} else if p.tested != "" {
		mergeSHA = p.tested
	}
	return object{
		"id": p.id, "node_id": nodeID("PullRequest", p.id), "number": p.number, "state": p.state, "locked": false,
		"title": p.title, "user": l.account(p.author), "body": body, "draft": p.draft,
		"created_at": timestamp(p.created), "updated_at": timestamp(p.updated), "closed_at": timestamp(p.closed), "merged_at": timestamp(p.merged),
		"merge_commit_sha": mergeSHA, "assignee": nil, "assignees": []object{}, "requested_reviewers": []object{},
		"requested_teams": []object{}, "labels": each(p.labels, func(name string) object { return l.label(r, name) }), "milestone": nil, "author_association": r.association(p.author),
		"auto_merge": nil, "active_lock_reason": nil, "head": l.end(p.head), "base": l.end(p.base),
		"url": self, "html_url": html, "diff_url": html + ".diff", "patch_url": html + ".patch", "issue_url": issue,
		"commits_url": self + "/commits", "review_comments_url": self + "/comments", "comments_url": issue + "/comments",
		"review_comment_url": api + "/pulls/comments{/number}", "statuses_url": statuses,
		"_links": object{
			"self": href(self), "html": href(html), "issue": href(issue), "comments": href(issue + "/comments"),
			"review_comments": href(self + "/comments"), "review_comment": href(api + "/pulls/comments{/number}"),
			"commits": href(self + "/commits"), "statuses": href(statuses),
		},
	}
}

func href(address string) object { return object{"href": address} }

func (l links) end(e end) object {
	var repo any
	if !e.repo.gone {
		repo = l.repository(e.repo)
	}
	return object{"label": e.label(), "ref": e.branch, "sha": e.sha, "user": l.account(e.repo.owner), "repo": repo}
}

// wholePull shows a pull request with all fields, as a response about it alone and webhooks do.
func (l links) wholePull(p *pull) object {
	full := l.pull(p)
	changes := p.changes()
	added, removed := lines(changes)
	var mergeable, mergedBy any
	state := "unknown" // GitHub has not tried the merge yet, or the pull request is closed
	switch {
	case p.state != "open":
	case p.tested != "":
		mergeable, state = true, "clean"
	case len(p.conflicts) > 0:
		mergeable, state = false, "dirty"
	}
	if p.mergedBy != nil {
		mergedBy = l.account(p.mergedBy)
	}
	maps.Copy(full, (object{
		"merged": p.mergedAs != "", "mergeable": mergeable, "rebaseable": mergeable, "mergeable_state": state, "merged_by": mergedBy,
		"comments": len(p.base.repo.commentsOn(p.number)), "review_comments": 0, "maintainer_can_modify": false, "commits": len(p.commits()),
		"additions": added, "deletions": removed, "changed_files": len(changes),
	}))
	return full
}
