package githubsim

import (
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.html
var pageText string

func newPage() *template.Template {
	return template.Must(template.New("page").Parse(pageText))
}

// pages has the pages and buttons for people. A button shows a browser the page again, and answers others in a line.
type pages struct {
	*Sim

	page *template.Template
}

func (s *pages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /sim", s.showIndex)
	mux.HandleFunc("GET /sim/{owner}/{repo}", s.showRepository)
	mux.HandleFunc("GET /sim/misbehave", s.showMisbehaviours)
	for pattern, act := range map[string]func(*http.Request) (string, error){
		"POST /sim/misbehave":                            s.pressMisbehave,
		"POST /sim/behave":                               s.pressBehave,
		"POST /sim/{owner}/{repo}/pulls":                 s.pressOpen,
		"POST /sim/{owner}/{repo}/pulls/{number}/push":   s.pressPush,
		"POST /sim/{owner}/{repo}/pulls/{number}/merge":  s.pressMerge,
		"POST /sim/{owner}/{repo}/pulls/{number}/close":  s.pressClose,
		"POST /sim/{owner}/{repo}/pulls/{number}/reopen": s.pressReopen,
	} {
		mux.HandleFunc(pattern, button(act))
	}
}

func button(act func(*http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		said, err := act(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			to, _ := url.JoinPath("/sim", r.PathValue("owner"), r.PathValue("repo")) // plain names join
			http.Redirect(w, r, to, http.StatusSeeOther)
			return
		}
		_, _ = fmt.Fprintln(w, said) // a client that hung up needs no answer
	}
}

// redirectToPage leads from an address that GitHub shows people, such as owner/repo/pull/1, to the page of the
// repository. It answers 404 to any other path that no route knows.
func (s *front) redirectToPage(c *call) *response {
	parts := strings.Split(strings.Trim(c.URL.Path, "/"), "/")
	if len(parts) < 2 || s.repositories[key(parts[0], parts[1])] == nil {
		return notFound()
	}
	to := "/sim/" + parts[0] + "/" + parts[1]
	if len(parts) == 4 && parts[2] == "pull" {
		to += "#" + parts[3]
	}
	return &response{status: http.StatusFound, header: http.Header{"Location": {to}}}
}

func randomWord() string { return strings.ToLower(rand.Text()[:6]) }

// changeOf returns the change that a form asks for; where it names no file, a new note.
func changeOf(r *http.Request) Commit {
	name, content := r.FormValue("file"), r.FormValue("content")
	if name == "" {
		name = "notes/" + randomWord() + ".md"
	}
	if content == "" {
		content = "A thought worth keeping: " + randomWord() + "\n"
	}
	return Commit{Files: map[string]string{name: content}}
}

func (s *pages) pressOpen(r *http.Request) (string, error) {
	owner, repo, branch := r.PathValue("owner"), r.PathValue("repo"), "change-"+randomWord()
	change := changeOf(r)
	change.Message = r.FormValue("title")
	if err := s.CreateBranch(owner, repo, branch, r.FormValue("base")); err != nil {
		return "", err
	}
	if _, err := s.Commit(owner, repo, branch, change); err != nil {
		return "", err
	}
	title := change.Message
	if title == "" {
		title = "Change " + strings.TrimPrefix(branch, "change-")
	}
	number, err := s.OpenPullRequest(owner, repo, PullRequest{Title: title, Head: branch, Base: r.FormValue("base")})
	return fmt.Sprintf("opened %s/%s#%d: %s", owner, repo, number, title), err
}

func (s *pages) pressPush(r *http.Request) (string, error) {
	owner, repo, number := pullOf(r)
	p, err := s.PullRequest(owner, repo, number)
	if err != nil {
		return "", err
	}
	sha, err := s.Commit(owner, repo, p.Head, changeOf(r))
	return fmt.Sprintf("pushed %.7s to %s", sha, p.Head), err
}

func (s *pages) pressMerge(r *http.Request) (string, error) {
	owner, repo, number := pullOf(r)
	sha, err := s.Merge(owner, repo, number)
	return fmt.Sprintf("merged %s/%s#%d as %.7s", owner, repo, number, sha), err
}

func (s *pages) pressClose(r *http.Request) (string, error) {
	owner, repo, number := pullOf(r)
	return fmt.Sprintf("closed %s/%s#%d", owner, repo, number), s.ClosePullRequest(owner, repo, number)
}

func (s *pages) pressReopen(r *http.Request) (string, error) {
	owner, repo, number := pullOf(r)
	return fmt.Sprintf("reopened %s/%s#%d", owner, repo, number), s.ReopenPullRequest(owner, repo, number)
}

func pullOf(r *http.Request) (owner, repo string, number int) {
	number, _ = strconv.Atoi(r.PathValue("number")) // 0 names no pull request, which is refused
	return r.PathValue("owner"), r.PathValue("repo"), number
}

// A pageData is what the page shows. Without a Repository it is the index.
type pageData struct {
	Repositories []string
	Repository   string
	Pulls        []pagePull
	Branches     []pageBranch
}

type pagePull struct {
	PullRequest
	Shown  string    // open, merged or closed
	Checks []*Status // at the head, and at the merge commit
}

type pageBranch struct {
	Name, SHA, Message string
	Checks             []*Status
}

func (s *pages) showIndex(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	var data pageData
	for _, r := range s.repositories {
		data.Repositories = append(data.Repositories, r.fullName())
	}
	s.mu.Unlock()
	slices.Sort(data.Repositories)
	s.render(w, data)
}

func (s *pages) showRepository(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	repo, err := s.find(r.PathValue("owner"), r.PathValue("repo"))
	if err != nil {
		s.mu.Unlock()
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	data := repo.page()
	s.mu.Unlock()
	s.render(w, data)
}

func (r *repository) page() pageData {
	data := pageData{Repository: r.fullName()}
	for _, p := range slices.Backward(r.pulls) {
		checks := r.checks(p.head.sha)
		if p.mergedAs != "" {
			checks = append(checks, r.checks(p.mergedAs)...)
		}
		data.Pulls = append(data.Pulls, pagePull{PullRequest: p.public(), Shown: p.describe(), Checks: checks})
	}
	for _, ref := range r.refsUnder("refs/heads/") {
		tip := r.commits[r.refs[ref]]
		message, _, _ := strings.Cut(tip.message, "\n")
		data.Branches = append(data.Branches, pageBranch{
			Name: strings.TrimPrefix(ref, "refs/heads/"), SHA: tip.sha[:7], Message: message, Checks: r.checks(tip.sha),
		})
	}
	return data
}

// checks returns the statuses of a commit, and its check runs as statuses.
func (r *repository) checks(sha string) []*Status {
	list := r.latestStatuses(sha)
	for _, run := range r.latestRuns(sha) {
		state := map[verdict]string{undecided: "pending", succeeded: "success", failed: "failure"}[run.verdict()]
		list = append(list, &Status{Context: run.Name, State: state, Description: run.Title, TargetURL: run.DetailsURL})
	}
	return list
}

func (s *pages) render(w http.ResponseWriter, data pageData) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := s.page.Execute(w, data); err != nil {
		s.config.Log.Debug("write of the page failed", "error", err)
	}
}
