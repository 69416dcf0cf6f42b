package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Deployment is one that the App made, with its statuses, the oldest first.
type Deployment struct {
	ID          int64
	SHA         string
	Ref         string
	Environment string
	Description string
	Created     time.Time
	Statuses    []DeploymentStatus
	Transient   bool // it is gone one day
	Production  bool
}

// State is that of the last status; empty where there is none.
func (d Deployment) State() string {
	if len(d.Statuses) == 0 {
		return ""
	}
	return d.Statuses[len(d.Statuses)-1].State
}

// A DeploymentStatus is a state of a deployment, with what goes with it.
type DeploymentStatus struct {
	ID             int64
	State          string // queued, in_progress, pending, success, failure, error or inactive
	Description    string
	LogURL         string
	EnvironmentURL string
	Created        time.Time
}

type deployment struct {
	Deployment
	task    string
	payload json.RawMessage
}

// Deployments lists a repository's, the oldest first.
func (s *Sim) Deployments(owner, repo string) ([]Deployment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	var list []Deployment
	for _, d := range r.deployments {
		one := d.Deployment
		one.Statuses = slices.Clone(d.Statuses)
		list = append(list, one)
	}
	return list, nil
}

// createDeployment does what surprises people, unless the request switches it off: it merges the default branch into the
// ref if that lacks commits of it (auto_merge), and refuses a commit with a status that is no success
// (required_contexts).
func (s *checkAPI) createDeployment(c *call) *response {
	want := struct {
		Ref              string          `json:"ref"`
		Task             string          `json:"task"`
		AutoMerge        bool            `json:"auto_merge"`
		RequiredContexts *[]string       `json:"required_contexts"`
		Payload          json.RawMessage `json:"payload"`
		Environment      string          `json:"environment"`
		Description      string          `json:"description"`
		Transient        bool            `json:"transient_environment"`
		Production       *bool           `json:"production_environment"`
	}{Task: "deploy", AutoMerge: true, Environment: "production", Payload: json.RawMessage(`""`)}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	at := c.repo.resolve(want.Ref)
	switch {
	case want.Ref == "":
		return refuse(http.StatusUnprocessableEntity, `Invalid request.`+"\n\n"+`"ref" wasn't supplied.`)
	case at == nil:
		return refuse(http.StatusUnprocessableEntity, "No ref found for: "+want.Ref)
	}
	refusal := refuseText("Deployment", text{"environment", want.Environment, maxContext, true}, text{"description", want.Description, maxDescription, true})
	if refusal != nil {
		return refusal
	}
	if want.AutoMerge && c.repo.branch(want.Ref) != nil {
		if merged := s.mergeDefaultBranch(c.repo, want.Ref); merged != nil {
			return merged
		}
	}
	if unmet := c.repo.unmet(at.sha, want.RequiredContexts); len(unmet) > 0 {
		return refuse(http.StatusConflict, "Conflict: Commit status checks failed for "+want.Ref+".",
			object{"contexts": unmet, "resource": "Deployment", "field": "required_contexts", "code": "invalid"})
	}
	d := &deployment{
		Deployment: Deployment{
			ID: s.id(), SHA: at.sha, Ref: want.Ref, Environment: want.Environment, Description: want.Description, Created: s.now(),
			Transient: want.Transient, Production: want.Environment == "production",
		},
		task: want.Task, payload: want.Payload,
	}
	set(&d.Production, want.Production)
	c.repo.deployments = append(c.repo.deployments, d)
	return &response{status: http.StatusCreated, body: s.deployment(c, d)}
}

// mergeDefaultBranch merges the default branch into one that lacks commits of it, and answers with that in place of a
// deployment; nil where there is nothing to merge.
func (s *changes) mergeDefaultBranch(r *repository, branch string) *response {
	tip, main := r.branch(branch), r.branch(r.defaultBranch)
	if len(r.commits.between(tip.sha, main.sha)) == 0 {
		return nil
	}
	files, conflicts := r.commits.merge(tip.sha, main.sha)
	if len(conflicts) > 0 {
		return refuse(http.StatusConflict, fmt.Sprintf("Conflict merging %s into %s.", r.defaultBranch, branch))
	}
	merged := r.commits.add(commit{
		parents: []string{tip.sha, main.sha}, files: files, author: s.bot(), time: s.now(),
		message: fmt.Sprintf("Merge branch '%s' into %s", r.defaultBranch, branch),
	})
	s.move(r, "refs/heads/"+branch, merged.sha, s.bot())
	return &response{status: http.StatusAccepted, body: object{"message": fmt.Sprintf("Auto-merged %s into %s on deployment.", r.defaultBranch, branch)}}
}

// unmet returns the required contexts that are no success; nil requires all contexts of the commit.
func (r *repository) unmet(sha string, required *[]string) []object {
	states := map[string]string{}
	var names []string
	for _, st := range r.latestStatuses(sha) {
		states[st.Context] = st.State
		names = append(names, st.Context)
	}
	if required != nil {
		names = *required
	}
	var unmet []object
	for _, name := range names {
		if states[name] != "success" {
			unmet = append(unmet, object{"context": name, "state": states[name]})
		}
	}
	return unmet
}

func (s *checkAPI) listDeployments(c *call) *response {
	query := c.URL.Query()
	var found []*deployment
	for _, d := range slices.Backward(c.repo.deployments) {
		fits := true
		for name, value := range map[string]string{"sha": d.SHA, "ref": d.Ref, "task": d.task, "environment": d.Environment} {
			fits = fits && (query.Get(name) == "" || query.Get(name) == value)
		}
		if fits {
			found = append(found, d)
		}
	}
	return listPage(c, found, func(d *deployment) object { return s.deployment(c, d) })
}

func (s *checkAPI) getDeployment(c *call) *response {
	d := c.repo.deployment(c.number("id"))
	if d == nil {
		return notFound()
	}
	return ok(s.deployment(c, d))
}

func (r *repository) deployment(id int64) *deployment {
	i := slices.IndexFunc(r.deployments, func(d *deployment) bool { return d.ID == id })
	if i < 0 {
		return nil
	}
	return r.deployments[i]
}

func (s *checkAPI) createDeploymentStatus(c *call) *response {
	d := c.repo.deployment(c.number("id"))
	if d == nil {
		return notFound()
	}
	want := struct {
		State          string `json:"state"`
		Description    string `json:"description"`
		LogURL         string `json:"log_url"`
		EnvironmentURL string `json:"environment_url"`
		Environment    string `json:"environment"`
		AutoInactive   bool   `json:"auto_inactive"`
	}{AutoInactive: true}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	states := []string{"error", "failure", "inactive", "in_progress", "queued", "pending", "success"}
	if !slices.Contains(states, want.State) {
		return invalid("DeploymentStatus", "state", "custom", "state is not included in the list")
	}
	if refusal := refuseText("DeploymentStatus", text{"description", want.Description, maxDescription, true}); refusal != nil {
		return refusal
	}
	for name, address := range map[string]string{"log_url": want.LogURL, "environment_url": want.EnvironmentURL} {
		if address != "" && !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
			return invalid("DeploymentStatus", name, "custom", name+" must use http(s) scheme")
		}
	}
	if want.Environment != "" {
		d.Environment = want.Environment
	}
	d.Statuses = append(d.Statuses, DeploymentStatus{
		ID: s.id(), State: want.State, Description: want.Description, LogURL: want.LogURL, EnvironmentURL: want.EnvironmentURL, Created: s.now(),
	})
	if want.State == "success" && want.AutoInactive {
		s.deactivateEarlier(c.repo, d)
	}
	return &response{status: http.StatusCreated, body: s.deploymentStatus(c, d, d.Statuses[len(d.Statuses)-1])}
}

// deactivateEarlier makes the earlier successes of an environment inactive, unless they are transient or of production.
func (s *changes) deactivateEarlier(r *repository, by *deployment) {
	for _, d := range r.deployments {
		if d.ID < by.ID && d.Environment == by.Environment && d.State() == "success" && !d.Transient && !d.Production {
			d.Statuses = append(d.Statuses, DeploymentStatus{ID: s.id(), State: "inactive", Created: s.now()})
		}
	}
}

func (s *checkAPI) listDeploymentStatuses(c *call) *response {
	d := c.repo.deployment(c.number("id"))
	if d == nil {
		return notFound()
	}
	newest := slices.Clone(d.Statuses)
	slices.Reverse(newest)
	return listPage(c, newest, func(st DeploymentStatus) object { return s.deploymentStatus(c, d, st) })
}

func (s *checkAPI) deployment(c *call, d *deployment) object {
	api := fmt.Sprintf("%s/repos/%s", c.links, c.repo.fullName())
	self := fmt.Sprintf("%s/deployments/%d", api, d.ID)
	updated := d.Created
	if len(d.Statuses) > 0 {
		updated = d.Statuses[len(d.Statuses)-1].Created
	}
	return object{
		"id": d.ID, "node_id": nodeID("Deployment", d.ID), "url": self, "sha": d.SHA, "ref": d.Ref, "task": d.task, "payload": d.payload,
		"original_environment": d.Environment, "environment": d.Environment, "description": orNull(d.Description),
		"creator": c.links.account(s.bot()), "created_at": timestamp(d.Created), "updated_at": timestamp(updated),
		"statuses_url": self + "/statuses", "repository_url": api, "transient_environment": d.Transient, "production_environment": d.Production,
	}
}

func (s *checkAPI) deploymentStatus(c *call, d *deployment, st DeploymentStatus) object {
	api := fmt.Sprintf("%s/repos/%s", c.links, c.repo.fullName())
	self := fmt.Sprintf("%s/deployments/%d", api, d.ID)
	return object{
		"id": st.ID, "node_id": nodeID("DeploymentStatus", st.ID), "url": fmt.Sprintf("%s/statuses/%d", self, st.ID), "state": st.State,
		"creator": c.links.account(s.bot()), "description": st.Description, "environment": d.Environment, "target_url": st.LogURL,
		"log_url": st.LogURL, "environment_url": st.EnvironmentURL, "created_at": timestamp(st.Created), "updated_at": timestamp(st.Created),
		"deployment_url": self, "repository_url": api,
	}
}
