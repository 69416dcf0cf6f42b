package githubsim

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A CheckRun is one that the App made.
type CheckRun struct {
	ID          int64
	Name        string
	HeadSHA     string
	ExternalID  string
	DetailsURL  string
	Status      string // queued, in_progress or completed
	Conclusion  string // of a completed one
	Title       string
	Summary     string
	Text        string
	Annotations []Annotation
	Actions     []Action
	Started     time.Time
	Completed   time.Time
}

// An Annotation is what a check run says about lines of a file.
type Annotation struct {
	Path        string `json:"path"`
	StartLine   int    `json:"start_line"`
	EndLine     int    `json:"end_line"`
	StartColumn *int   `json:"start_column"`
	EndColumn   *int   `json:"end_column"`
	Level       string `json:"annotation_level"` // notice, warning or failure
	Message     string `json:"message"`
	Title       string `json:"title"`
	Details     string `json:"raw_details"`
}

// An Action is a button on a check run.
type Action struct {
	Label       string `json:"label"`
	Description string `json:"description"`
	Identifier  string `json:"identifier"`
}

// A checkSuite is all of the App's runs at a commit.
type checkSuite struct {
	id               int64
	repo             *repository
	branch, sha      string
	created, updated time.Time
	reset            bool // queued again, until a run moves
	runs             []*CheckRun
}

// CheckRuns lists all runs of a commit, the oldest first.
func (s *Sim) CheckRuns(owner, repo, sha string) ([]CheckRun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return nil, err
	}
	var list []CheckRun
	if suite := r.suiteAt(sha); suite != nil {
		for _, run := range suite.runs {
			one := *run
			one.Annotations, one.Actions = slices.Clone(run.Annotations), slices.Clone(run.Actions)
			list = append(list, one)
		}
	}
	return list, nil
}

// RerequestCheckRun presses a run's re-run button; octocat does if by is empty.
func (s *Sim) RerequestCheckRun(owner, repo string, id int64, by string) error {
	return s.press(owner, repo, id, func(suite *checkSuite, run *CheckRun) error {
		s.rerun(suite, run, s.user(by))
		return nil
	})
}

// RequestAction presses one of a run's own buttons.
func (s *Sim) RequestAction(owner, repo string, id int64, identifier, by string) error {
	return s.press(owner, repo, id, func(suite *checkSuite, run *CheckRun) error {
		if !slices.ContainsFunc(run.Actions, func(a Action) bool { return a.Identifier == identifier }) {
			return fmt.Errorf("check run %d of %s/%s has no button %q", id, owner, repo, identifier)
		}
		s.emitRun(suite, run, "requested_action", s.user(by), object{"requested_action": object{"identifier": identifier}})
		return nil
	})
}

func (s *changes) press(owner, repo string, id int64, act func(*checkSuite, *CheckRun) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	suite, run := r.run(id)
	if run == nil {
		return fmt.Errorf("check run %d of %s/%s does not exist", id, owner, repo)
	}
	return act(suite, run)
}

// RerequestCheckSuite presses "re-run all checks" at a commit.
func (s *Sim) RerequestCheckSuite(owner, repo, sha, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(owner, repo)
	if err != nil {
		return err
	}
	suite := r.suiteAt(sha)
	if suite == nil {
		return fmt.Errorf("%s has no check suite at %s", r.fullName(), sha)
	}
	s.rerunAll(suite, s.user(by))
	return nil
}

func (s *changes) rerun(suite *checkSuite, run *CheckRun, by *account) {
	suite.reset, suite.updated = true, s.now()
	s.emitRun(suite, run, "rerequested", by, nil)
}

func (s *changes) rerunAll(suite *checkSuite, by *account) {
	suite.reset, suite.updated = true, s.now()
	s.emitSuite(suite, "rerequested", by)
}

func (r *repository) suiteAt(sha string) *checkSuite {
	i := slices.IndexFunc(r.suites, func(suite *checkSuite) bool { return suite.sha == sha })
	if i < 0 {
		return nil
	}
	return r.suites[i]
}

// suiteFor returns the suite at a commit, and makes it where there is none.
func (s *state) suiteFor(r *repository, sha string) *checkSuite {
	if suite := r.suiteAt(sha); suite != nil {
		return suite
	}
	suite := &checkSuite{id: s.id(), repo: r, branch: r.branchAt(sha), sha: sha, created: s.now(), updated: s.now()}
	r.suites = append(r.suites, suite)
	return suite
}

func (r *repository) branchAt(sha string) string {
	for _, ref := range r.refsUnder("refs/heads/") {
		if r.refs[ref] == sha {
			return ref[len("refs/heads/"):]
		}
	}
	return ""
}

func (r *repository) run(id int64) (*checkSuite, *CheckRun) {
	for _, suite := range r.suites {
		for _, run := range suite.runs {
			if run.ID == id {
				return suite, run
			}
		}
	}
	return nil, nil
}

// latestRuns returns the last run of each name.
func (r *repository) latestRuns(sha string) []*CheckRun {
	suite := r.suiteAt(sha)
	if suite == nil {
		return nil
	}
	return suite.latest()
}

func (c *checkSuite) latest() []*CheckRun {
	var list []*CheckRun
	for _, run := range slices.Backward(c.runs) {
		if !slices.ContainsFunc(list, func(newer *CheckRun) bool { return newer.Name == run.Name }) {
			list = append(list, run)
		}
	}
	slices.Reverse(list)
	return list
}

func (r *CheckRun) verdict() verdict {
	switch {
	case r.Status != "completed":
		return undecided
	case slices.Contains([]string{"success", "neutral", "skipped"}, r.Conclusion):
		return succeeded
	}
	return failed
}

// state returns the status and conclusion that follow from the runs.
func (c *checkSuite) state() (status, conclusion string) {
	runs := c.latest()
	if c.reset || len(runs) == 0 {
		return "queued", ""
	}
	conclusion = "success"
	for _, run := range runs {
		switch run.verdict() {
		case undecided:
			return "in_progress", ""
		case failed:
			conclusion = run.Conclusion
		case succeeded:
		}
	}
	return "completed", conclusion
}

func (s *state) emitRun(suite *checkSuite, run *CheckRun, action string, by *account, more object) {
	s.emit(event{name: "check_run", action: action, repo: suite.repo, sender: by, payload: func(l links) object {
		body := object{"check_run": l.checkRun(s, suite, run)}
		maps.Copy(body, more)
		return body
	}})
}

func (s *state) emitSuite(suite *checkSuite, action string, by *account) {
	s.emit(event{name: "check_suite", action: action, repo: suite.repo, sender: by, payload: func(l links) object {
		full := l.checkSuite(s, suite)
		full["head_commit"] = headCommit(suite.repo.commits[suite.sha])
		return object{"check_suite": full}
	}})
}

// pullsAt returns the pull requests that show a commit's checks: open ones from the repository itself.
func (r *repository) pullsAt(sha string) []*pull {
	var found []*pull
	for _, p := range r.pulls {
		if p.state == "open" && p.head.repo == r && p.head.sha == sha {
			found = append(found, p)
		}
	}
	return found
}
