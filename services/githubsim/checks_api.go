package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"
)

// GitHub's bounds on check runs.
const (
	maxAnnotations = 50 // a request; more come with further ones
	maxActions     = 3
	maxOutput      = 65_535 // characters of a summary or a text
	maxLabel       = 20     // characters of an action's label, and of its identifier
	maxActionText  = 40     // of its description
)

// A runChange is what a request sets of a check run; a field that is nil stays as it is.
type runChange struct {
	Name        *string    `json:"name"`
	DetailsURL  *string    `json:"details_url"`
	ExternalID  *string    `json:"external_id"`
	Status      *string    `json:"status"`
	Conclusion  *string    `json:"conclusion"`
	StartedAt   *time.Time `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	Output      *runOutput `json:"output"`
	Actions     *[]Action  `json:"actions"`
}

type runOutput struct {
	Title       *string      `json:"title"`
	Summary     *string      `json:"summary"`
	Text        *string      `json:"text"`
	Annotations []Annotation `json:"annotations"`
}

func (s *checkAPI) createCheckRun(c *call) *response {
	var want struct {
		runChange
		HeadSHA string `json:"head_sha"`
	}
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	if want.Name == nil || *want.Name == "" {
		return wrongCheck(`"name" wasn't supplied.`)
	}
	if c.repo.commits[want.HeadSHA] == nil {
		return noCommitFor(want.HeadSHA)
	}
	if refusal := want.refuse(); refusal != nil {
		return refusal
	}
	suite := s.suiteFor(c.repo, want.HeadSHA)
	run := &CheckRun{ID: s.id(), HeadSHA: want.HeadSHA, Status: "queued"}
	suite.runs = append(suite.runs, run)
	s.change(suite, run, want.runChange)
	s.emitRun(suite, run, "created", s.bot(), nil)
	s.concluded(suite, run, false)
	return &response{status: http.StatusCreated, body: c.links.checkRun(s.state, suite, run)}
}

func (s *checkAPI) updateCheckRun(c *call) *response {
	suite, run := c.repo.run(c.number("id"))
	if run == nil {
		return notFound()
	}
	var want runChange
	if refusal := c.decode(&want); refusal != nil {
		return refusal
	}
	if refusal := want.refuse(); refusal != nil {
		return refusal
	}
	before := run.Status == "completed"
	s.change(suite, run, want)
	s.concluded(suite, run, before)
	return ok(c.links.checkRun(s.state, suite, run))
}

func wrongCheck(why string) *response {
	return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\n"+why)
}

// refuse returns GitHub's refusal of a request; nil for a good one.
func (w runChange) refuse() *response {
	conclusions := []string{"action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"}
	if w.Status != nil && !slices.Contains([]string{"queued", "in_progress", "completed"}, *w.Status) {
		return wrongCheck(*w.Status + " is not a member of [\"queued\", \"in_progress\", \"completed\"].")
	}
	if w.Conclusion != nil && !slices.Contains(conclusions, *w.Conclusion) {
		return wrongCheck(fmt.Sprintf("%s is not a member of %q.", *w.Conclusion, conclusions))
	}
	if w.Status != nil && *w.Status == "completed" && w.Conclusion == nil {
		return wrongCheck(`"conclusion" wasn't supplied.`)
	}
	if w.Actions != nil {
		if refusal := refuseActions(*w.Actions); refusal != nil {
			return refusal
		}
	}
	if w.Output != nil {
		return w.Output.refuse()
	}
	return nil
}

func refuseActions(actions []Action) *response {
	if len(actions) > maxActions {
		return wrongCheck(fmt.Sprintf("No more than %d items are allowed; %d were supplied.", maxActions, len(actions)))
	}
	for _, a := range actions {
		for text, most := range map[string]int{a.Label: maxLabel, a.Identifier: maxLabel, a.Description: maxActionText} {
			if text == "" || utf8.RuneCountInString(text) > most {
				return wrongCheck(fmt.Sprintf("An action's label and identifier have 1 to %d characters, its description 1 to %d.", maxLabel, maxActionText))
			}
		}
	}
	return nil
}

func (o runOutput) refuse() *response {
	if o.Title == nil || o.Summary == nil {
		return wrongCheck(`"title" and "summary" weren't supplied.`)
	}
	if utf8.RuneCountInString(*o.Summary) > maxOutput || o.Text != nil && utf8.RuneCountInString(*o.Text) > maxOutput {
		return wrongCheck(fmt.Sprintf("Only %d characters are allowed.", maxOutput))
	}
	if len(o.Annotations) > maxAnnotations {
		return wrongCheck(fmt.Sprintf("No more than %d items are allowed; %d were supplied.", maxAnnotations, len(o.Annotations)))
	}
	for _, a := range o.Annotations {
		switch {
		case a.Path == "" || a.Message == "" || a.StartLine < 1 || a.EndLine < a.StartLine:
			return wrongCheck("An annotation has a path, a message, a start_line and an end_line not before it.")
		case !slices.Contains([]string{"notice", "warning", "failure"}, a.Level):
			return wrongCheck(a.Level + " is not a member of [\"notice\", \"warning\", \"failure\"].")
		case a.StartLine != a.EndLine && (a.StartColumn != nil || a.EndColumn != nil):
			return wrongCheck("An annotation has columns only within one line.")
		}
	}
	return nil
}

// change applies a request that was not refused. A conclusion completes the run; another status takes it back.
func (s *changes) change(suite *checkSuite, run *CheckRun, want runChange) {
	suite.reset, suite.updated = false, s.now()
	set(&run.Name, want.Name)
	set(&run.DetailsURL, want.DetailsURL)
	set(&run.ExternalID, want.ExternalID)
	set(&run.Started, want.StartedAt)
	set(&run.Actions, want.Actions)
	if want.Output != nil {
		set(&run.Title, want.Output.Title)
		set(&run.Summary, want.Output.Summary)
		set(&run.Text, want.Output.Text)
		run.Annotations = append(run.Annotations, want.Output.Annotations...)
	}
	switch {
	case want.Conclusion != nil:
		run.Status, run.Conclusion, run.Completed = "completed", *want.Conclusion, s.now()
		set(&run.Completed, want.CompletedAt)
	case want.Status != nil:
		run.Status, run.Conclusion, run.Completed = *want.Status, "", time.Time{}
	}
	if run.Started.IsZero() {
		run.Started = s.now()
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// concluded sends the events of a run that has just ended, and of its suite where that has ended with it.
func (s *changes) concluded(suite *checkSuite, run *CheckRun, before bool) {
	if before || run.Status != "completed" {
		return
	}
	s.emitRun(suite, run, "completed", s.bot(), nil)
	if status, _ := suite.state(); status == "completed" {
		s.emitSuite(suite, "completed", s.bot())
	}
	s.advance(suite.repo)
}

func (s *checkAPI) getCheckRun(c *call) *response {
	suite, run := c.repo.run(c.number("id"))
	if run == nil {
		return notFound()
	}
	return ok(c.links.checkRun(s.state, suite, run))
}

func (s *checkAPI) listAnnotations(c *call) *response {
	_, run := c.repo.run(c.number("id"))
	if run == nil {
		return notFound()
	}
	return listPage(c, run.Annotations, func(a Annotation) object {
		return object{
			"path": a.Path, "blob_href": fmt.Sprintf("%s/%s/blob/%s/%s", c.links, c.repo.fullName(), run.HeadSHA, a.Path),
			"start_line": a.StartLine, "end_line": a.EndLine, "start_column": a.StartColumn, "end_column": a.EndColumn,
			"annotation_level": a.Level, "message": a.Message, "title": orNull(a.Title), "raw_details": orNull(a.Details),
		}
	})
}

func (s *checkAPI) rerequestRun(c *call) *response {
	suite, run := c.repo.run(c.number("id"))
	if run == nil {
		return notFound()
	}
	s.rerun(suite, run, s.bot())
	return &response{status: http.StatusCreated, body: object{}}
}

func (s *checkAPI) listRefRuns(c *call) *response {
	at := c.repo.resolve(c.PathValue("ref"))
	if at == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	return s.listRuns(c, c.repo.suiteAt(at.sha))
}

func (s *checkAPI) listSuiteRuns(c *call) *response {
	suite := c.repo.suite(c.number("id"))
	if suite == nil {
		return notFound()
	}
	return s.listRuns(c, suite)
}

// listRuns lists the last run of each name, or all of them if asked to.
func (s *checkAPI) listRuns(c *call, suite *checkSuite) *response {
	query, runs := c.URL.Query(), []*CheckRun{}
	if suite != nil && query.Get("filter") == "all" {
		runs = slices.Clone(suite.runs)
	} else if suite != nil {
		runs = suite.latest()
	}
	runs = slices.DeleteFunc(runs, func(run *CheckRun) bool {
		return query.Has("check_name") && run.Name != query.Get("check_name") || query.Has("status") && run.Status != query.Get("status")
	})
	some, header := page(c, usualPage, runs)
	return &response{status: http.StatusOK, header: header, body: object{
		"total_count": len(runs), "check_runs": each(some, func(run *CheckRun) object { return c.links.checkRun(s.state, suite, run) }),
	}}
}

func (s *checkAPI) listSuites(c *call) *response {
	at := c.repo.resolve(c.PathValue("ref"))
	if at == nil {
		return noCommitFor(c.PathValue("ref"))
	}
	suites := []*checkSuite{}
	if suite := c.repo.suiteAt(at.sha); suite != nil {
		suites = append(suites, suite)
	}
	return ok(object{"total_count": len(suites), "check_suites": each(suites, func(suite *checkSuite) object { return c.links.checkSuite(s.state, suite) })})
}

func (s *checkAPI) getSuite(c *call) *response {
	suite := c.repo.suite(c.number("id"))
	if suite == nil {
		return notFound()
	}
	return ok(c.links.checkSuite(s.state, suite))
}

func (s *checkAPI) rerequestSuite(c *call) *response {
	suite := c.repo.suite(c.number("id"))
	if suite == nil {
		return notFound()
	}
	s.rerunAll(suite, s.bot())
	return &response{status: http.StatusCreated, body: object{}}
}

func (r *repository) suite(id int64) *checkSuite {
	i := slices.IndexFunc(r.suites, func(suite *checkSuite) bool { return suite.id == id })
	if i < 0 {
		return nil
	}
	return r.suites[i]
}
