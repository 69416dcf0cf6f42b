package githubsim

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxStatuses is how many statuses GitHub keeps of one context at one commit.
const maxStatuses = 1000

// A Status is one of a commit.
type Status struct {
	ID          int64
	State       string // pending, success, failure or error
	Context     string
	Description string
	TargetURL   string
	Creator     string
	Created     time.Time
}

// StatusHistory lists all statuses of a commit, the oldest first.
func (s *Sim) StatusHistory(owner, repo, sha string) ([]Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	var told []Status
	for _, st := range r.statuses[sha] {
		told = append(told, *st)
	}
	return told, nil
}

// Statuses returns the statuses that a commit shows: the latest of each context.
func (s *Sim) Statuses(owner, repo, sha string) (map[string]Status, error) {
	told, err := s.StatusHistory(owner, repo, sha)
	latest := map[string]Status{}
	for _, st := range told {
		latest[st.Context] = st
	}
	return latest, err
}

func (s *checkAPI) createStatus(c *call) *response {
	at := c.repo.commits[c.PathValue("sha")]
	if at == nil {
		return noCommitFor(c.PathValue("sha"))
	}
	var want struct {
		State       string  `json:"state"`
		Context     *string `json:"context"`
		Description string  `json:"description"`
		TargetURL   string  `json:"target_url"`
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	context := "default"
	if want.Context != nil {
		context = *want.Context
	}
	same := 0
	for _, st := range c.repo.statuses[at.sha] {
		if strings.EqualFold(st.Context, context) {
			same++
		}
	}
	switch {
	case !slices.Contains([]string{"error", "failure", "pending", "success"}, want.State):
		return invalid("Status", "state", "custom", "state is not included in the list")
	case want.TargetURL != "" && !strings.HasPrefix(want.TargetURL, "http://") && !strings.HasPrefix(want.TargetURL, "https://"):
		return invalid("Status", "target_url", "custom", "target_url must use http(s) scheme")
	case same >= maxStatuses:
		return invalid("Status", "", "custom", "This SHA and context has reached the maximum number of statuses.")
	}
	refusal := refuseText("Status", text{"context", context, maxContext, true}, text{"description", want.Description, maxDescription, true})
	if refusal != nil {
		return refusal
	}
	st := &Status{
		ID: s.id(), State: want.State, Context: context, Description: want.Description, TargetURL: want.TargetURL,
		Creator: s.bot().login, Created: s.now(),
	}
	c.repo.statuses[at.sha] = append(c.repo.statuses[at.sha], st)
	s.advance(c.repo)
	return &response{status: http.StatusCreated, body: s.wholeStatus(c, at, st)}
}

func (s *checkAPI) listStatuses(c *call) *response {
	at := c.repo.resolve(c.PathValue("ref"))
	if at == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	newest := slices.Clone(c.repo.statuses[at.sha])
	slices.Reverse(newest)
	return listPage(c, newest, func(st *Status) object { return s.wholeStatus(c, at, st) })
}

func (s *checkAPI) getCombinedStatus(c *call) *response {
	at := c.repo.resolve(c.PathValue("ref"))
	if at == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	latest := c.repo.latestStatuses(at.sha)
	some, header := page(c, usualPage, latest)
	api := fmt.Sprintf("%s/repos/%s/commits/%s", c.links, c.repo.fullName(), at.sha)
	return &response{status: http.StatusOK, header: header, body: object{
		"state": combined(latest), "sha": at.sha, "total_count": len(latest), "url": api + "/status", "commit_url": api,
		"repository": c.links.repository(c.repo),
		"statuses":   each(some, func(st *Status) object { return s.status(c, at, st) }),
	}}
}

// latestStatuses returns the last status of each context, by context.
func (r *repository) latestStatuses(sha string) []*Status {
	latest := map[string]*Status{}
	for _, st := range r.statuses[sha] {
		latest[strings.ToLower(st.Context)] = st
	}
	list := make([]*Status, 0, len(latest))
	for _, st := range latest {
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b *Status) int { return cmp.Compare(a.Context, b.Context) })
	return list
}

// combined returns the state of a commit: failure if any status failed, else pending if any is pending or there is none,
// else success.
func combined(latest []*Status) string {
	state := "success"
	if len(latest) == 0 {
		state = "pending"
	}
	for _, st := range latest {
		switch st.State {
		case "failure", "error":
			return "failure"
		case "pending":
			state = "pending"
		}
	}
	return state
}

// wholeStatus shows a status with its creator, whom the combined status leaves out.
func (s *checkAPI) wholeStatus(c *call, at *commit, st *Status) object {
	full := s.status(c, at, st)
	full["creator"] = c.links.account(s.bot())
	return full
}

func (s *checkAPI) status(c *call, at *commit, st *Status) object {
	bot := s.bot()
	return object{
		"id": st.ID, "node_id": nodeID("StatusContext", st.ID), "state": st.State, "context": st.Context,
		"description": orNull(st.Description), "target_url": orNull(st.TargetURL), "created_at": timestamp(st.Created), "updated_at": timestamp(st.Created),
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", c.links, bot.id),
		"url":        fmt.Sprintf("%s/repos/%s/statuses/%s", c.links, c.repo.fullName(), at.sha),
	}
}
