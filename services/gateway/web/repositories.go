package web

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// repositories are the pages of what belongs to a repository besides its builds.
type repositories struct {
	*Pages

	files         configv1.BuildConfigServiceClient
	installations configv1.InstallationServiceClient
	secrets       schedulerv1.SecretServiceClient
	caches        schedulerv1.CacheServiceClient
	schedules     schedulerv1.ScheduleServiceClient
	manual        schedulerv1.ManualServiceClient
}

func newRepositories(p *Pages) *repositories {
	return &repositories{
		p, configv1.NewBuildConfigServiceClient(p.deps.Config), configv1.NewInstallationServiceClient(p.deps.Config), schedulerv1.NewSecretServiceClient(p.deps.Scheduler),
		schedulerv1.NewCacheServiceClient(p.deps.Scheduler), schedulerv1.NewScheduleServiceClient(p.deps.Scheduler),
		schedulerv1.NewManualServiceClient(p.deps.Scheduler),
	}
}

func (p *repositories) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /repositories", p.list)
	mux.HandleFunc("GET /repositories/{owner}/{name}/file", p.file)
	mux.HandleFunc("GET /repositories/{owner}/{name}/tests", p.flaky)
	mux.HandleFunc("GET /repositories/{owner}/{name}/tests/history", p.history)
	mux.HandleFunc("GET /repositories/{owner}/{name}/schedules", p.scheduled)
	mux.HandleFunc("GET /repositories/{owner}/{name}/caches", p.cached)
	mux.HandleFunc("GET /repositories/{owner}/{name}/secrets", p.secret)
	mux.HandleFunc("GET /repositories/{owner}/{name}/badge", p.badge)
	mux.HandleFunc("GET /repositories/{owner}/{name}/run", p.run)
	mux.HandleFunc("POST /repositories/{owner}/{name}/run", p.act(p.runs))
}

// historyAddress is that of the page of a test's history.
func historyAddress(base, repository string) string {
	owner, name, _ := strings.Cut(repository, "/")
	return address(base+"/repositories", owner, name, "tests", "history")
}

// repositoryPage is what all pages of a repository show.
type repositoryPage struct {
	Repository string // owner/name
	What       string
	Tabs       []filter
	Next       string // the address of the page after; empty on the last

	HistoryLink string
}

// repositoryOf is the repository that a request names, as owner/name.
func repositoryOf(r *http.Request) string { return r.PathValue("owner") + "/" + r.PathValue("name") }

// page is the head of a page of the repository that a request names.
func (p *repositories) page(r *http.Request, what, token string) repositoryPage {
	shown := repositoryPage{Repository: repositoryOf(r), What: what, Next: nextPage(r, token)}
	shown.HistoryLink = historyAddress(p.deps.Base, shown.Repository)
	shown.Tabs = p.tabs(r.PathValue("owner"), r.PathValue("name"), what)
	return shown
}

// tabs lead from one page of a repository to the others.
func (p *Pages) tabs(owner, name, current string) []filter {
	at := address(p.deps.Base+"/repositories", owner, name)
	all := []filter{
		{Name: "Builds", Link: at},
		{Name: ".forge.yml", Link: at + "/file"},
		{Name: "Tests", Link: at + "/tests"},
		{Name: "Schedules", Link: at + "/schedules"},
		{Name: "Caches", Link: at + "/caches"},
		{Name: "Secrets", Link: at + "/secrets"},
		{Name: "Badge", Link: at + "/badge"},
	}
	for n := range all {
		all[n].Current = all[n].Name == current
	}
	return all
}

// fails answers a request whose call has failed.
func (p *repositories) fails(w http.ResponseWriter, r *http.Request, call string, err error) {
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		p.render(w, r, http.StatusNotFound, "error.html", errorPage{
			Title: "There is no such repository here",
			Text:  "The address may be incomplete, the GitHub App may not be installed on it, or nothing was built of it yet: " + err.Error(),
		})
		return
	}
	p.Pages.fails(w, r, call, err)
}

func (p *repositories) list(w http.ResponseWriter, r *http.Request) {
	answer, err := p.builds.ListRepositories(r.Context(), &schedulerv1.ListRepositoriesRequest{PageSize: 100, PageToken: r.URL.Query().Get("from")})
	if err != nil {
		p.Pages.fails(w, r, "ListRepositories", err)
		return
	}
	// Where the App is installed only operators see.
	installed, err := p.installations.ListInstallations(r.Context(), &configv1.ListInstallationsRequest{PageSize: 500})
	if err != nil && fault.KindOf(err) != fault.Unauthenticated && fault.KindOf(err) != fault.Denied && r.Context().Err() == nil {
		p.deps.Log.WarnContext(r.Context(), "ListInstallations failed; the page of repositories shows none", "error", err)
	}
	p.render(w, r, http.StatusOK, "repositories.html", struct {
		Repositories  []*schedulerv1.BuiltRepository
		Installations []*configv1.Installation
		Next          string
	}{answer.GetRepositories(), installed.GetInstallations(), nextPage(r, answer.GetNextPageToken())})
}

// fileLine is a line of .forge.yml with what is wrong at it.
type fileLine struct {
	Number   int
	Text     string
	Problems []*configv1.ConfigInvalid_Problem
}

// filePart is what one part of the file runs.
type filePart struct {
	When string
	Jobs []fileJob
}

type fileJob struct {
	Name, Image, Needs, Cells string
	Commands                  []*configv1.Command
}

// filePage is what the page of .forge.yml shows.
type filePage struct {
	repositoryPage

	*configv1.ShowBuildConfigResponse
	Ref    string
	Lines  []fileLine
	Others []*configv1.ConfigInvalid_Problem // of no line that is shown
	Parts  []filePart
	Whole  string // all that Forge has read of it, as JSON
}

func (p *repositories) file(w http.ResponseWriter, r *http.Request) {
	shown := filePage{repositoryPage: p.page(r, ".forge.yml", ""), Ref: r.URL.Query().Get("ref")}
	answer, err := p.files.ShowBuildConfig(r.Context(), &configv1.ShowBuildConfigRequest{Repository: shown.Repository, Ref: shown.Ref})
	if err != nil {
		p.fails(w, r, "ShowBuildConfig", err)
		return
	}
	shown.ShowBuildConfigResponse = answer
	shown.read()
	p.render(w, r, http.StatusOK, "file.html", shown)
}

// read takes apart what config has answered.
func (f *filePage) read() {
	if f.GetContent() != "" {
		for n, text := range strings.Split(strings.TrimSuffix(f.GetContent(), "\n"), "\n") {
			f.Lines = append(f.Lines, fileLine{Number: n + 1, Text: text})
		}
	}
	for _, problem := range f.GetInvalid().GetProblems() {
		if n := int(problem.GetLine()); n >= 1 && n <= len(f.Lines) {
			f.Lines[n-1].Problems = append(f.Lines[n-1].Problems, problem)
		} else {
			f.Others = append(f.Others, problem)
		}
	}
	if c := f.GetConfig(); c != nil {
		f.Parts, f.Whole = partsOf(c), protojson.MarshalOptions{Multiline: true, Indent: "  "}.Format(c)
	}
}

// partsOf is what a file has run, and when.
func partsOf(c *configv1.BuildConfig) []filePart {
	var parts []filePart
	add := func(when string, runs *configv1.Pipeline) {
		if len(runs.GetJobs())+len(runs.GetCommands()) == 0 {
			return
		}
		part := filePart{When: when}
		if len(runs.GetCommands()) > 0 {
			part.Jobs = []fileJob{{Image: c.GetImage(), Commands: runs.GetCommands()}}
		}
		cells := map[string]int{}
		for _, job := range runs.GetJobs() {
			if cells[job.GetName()]++; cells[job.GetName()] == 1 {
				part.Jobs = append(part.Jobs, fileJob{
					Name: job.GetName(), Image: cmp.Or(job.GetImage(), c.GetImage()), Needs: strings.Join(job.GetNeeds(), ", "), Commands: job.GetCommands(),
				})
			}
		}
		for n := range part.Jobs {
			if count := cells[part.Jobs[n].Name]; count > 1 {
				part.Jobs[n].Cells = wording.Count(count, "cell")
			}
		}
		parts = append(parts, part)
	}
	add("a pull request", c.GetExecute())
	add("a pull request into production", c.GetStaging())
	add("a pull request that is closed", c.GetPullRequest().GetClosed())
	add("a push of "+strings.Join(slices.Concat(c.GetPush().GetBranches(), c.GetPush().GetTags()), ", "), c.GetPush().GetExecute())
	add("a release", c.GetRelease().GetExecute())
	add("a deploy to staging", c.GetDeployStaging())
	add("a deploy to production", c.GetDeployProduction())
	for _, schedule := range c.GetSchedules() {
		add(fmt.Sprintf("the schedule %s (%s)", schedule.GetName(), schedule.GetCron()), schedule.GetExecute())
	}
	add("somebody who asks for it", c.GetManual().GetExecute())
	return parts
}

// keptPage is a list of what is kept of a repository.
type keptPage struct {
	repositoryPage

	Flaky     []*schedulerv1.FlakyTest
	History   []testRow
	Test      string // whose history it is
	Schedules []*schedulerv1.Schedule
	Caches    []*schedulerv1.Cache
	Stored    int64 // bytes that all caches take
	Secrets   []*schedulerv1.Secret
}

func (p *repositories) flaky(w http.ResponseWriter, r *http.Request) {
	answer, err := p.tests.ListFlakyTests(r.Context(), &schedulerv1.ListFlakyTestsRequest{
		Repository: repositoryOf(r), PageSize: testsShown, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		p.fails(w, r, "ListFlakyTests", err)
		return
	}
	p.render(w, r, http.StatusOK, "flaky.html", keptPage{repositoryPage: p.page(r, "Tests", answer.GetNextPageToken()), Flaky: answer.GetTests()})
}

func (p *repositories) history(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	answer, err := p.tests.ListTestHistory(r.Context(), &schedulerv1.ListTestHistoryRequest{
		Repository: repositoryOf(r), Name: query.Get("test"), Class: query.Get("class"), Suite: query.Get("suite"),
		PageSize: testsShown, PageToken: query.Get("from"),
	})
	if err != nil && !fault.Is(err, fault.NotFound) { // there may be a form to fill in
		p.fails(w, r, "ListTestHistory", err)
		return
	}
	shown := keptPage{repositoryPage: p.page(r, "Tests", answer.GetNextPageToken()), Test: query.Get("test")}
	for _, test := range answer.GetTests() {
		shown.History = append(shown.History, newTestRow(p.links, &schedulerv1.Build{}, test, nil))
	}
	p.render(w, r, http.StatusOK, "history.html", shown)
}

func (p *repositories) scheduled(w http.ResponseWriter, r *http.Request) {
	answer, err := p.schedules.ListSchedules(r.Context(), &schedulerv1.ListSchedulesRequest{
		Repository: repositoryOf(r), PageSize: 100, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		p.fails(w, r, "ListSchedules", err)
		return
	}
	p.render(w, r, http.StatusOK, "schedules.html", keptPage{repositoryPage: p.page(r, "Schedules", answer.GetNextPageToken()), Schedules: answer.GetSchedules()})
}

func (p *repositories) cached(w http.ResponseWriter, r *http.Request) {
	answer, err := p.caches.ListCaches(r.Context(), &schedulerv1.ListCachesRequest{
		Repository: repositoryOf(r), PageSize: 100, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		p.fails(w, r, "ListCaches", err)
		return
	}
	p.render(w, r, http.StatusOK, "caches.html", keptPage{
		repositoryPage: p.page(r, "Caches", answer.GetNextPageToken()), Caches: answer.GetCaches(), Stored: answer.GetStoredBytes(),
	})
}

func (p *repositories) secret(w http.ResponseWriter, r *http.Request) {
	answer, err := p.secrets.ListSecrets(r.Context(), &schedulerv1.ListSecretsRequest{
		Repository: repositoryOf(r), PageSize: 100, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		p.fails(w, r, "ListSecrets", err)
		return
	}
	p.render(w, r, http.StatusOK, "secrets.html", keptPage{repositoryPage: p.page(r, "Secrets", answer.GetNextPageToken()), Secrets: answer.GetSecrets()})
}

// badge shows how the badge of a repository is put into a README. Whoever can read the
// repository may.
func (p *repositories) badge(w http.ResponseWriter, r *http.Request) {
	owner, name := r.PathValue("owner"), r.PathValue("name")
	if _, err := p.builds.ListBuilds(r.Context(), &schedulerv1.ListBuildsRequest{Repository: owner + "/" + name, PageSize: 1}); err != nil {
		p.fails(w, r, "ListBuilds", err)
		return
	}
	picture := address("/badges", owner, name+".svg") + "?token=" + p.deps.BadgeToken(owner, name)
	outside := strings.TrimSuffix(p.deps.ExternalURL, "/")
	p.render(w, r, http.StatusOK, "badge.html", struct {
		repositoryPage
		Picture, Markdown string
	}{
		p.page(r, "Badge", ""), p.deps.Base + picture,
		fmt.Sprintf("[![Forge](%s%s)](%s)", outside, picture, outside+"/builds?repository="+url.QueryEscape(owner+"/"+name)),
	})
}

// count is a number of things, whatever type the number is of.
func count(n any, noun string) string {
	switch n := n.(type) {
	case int64:
		return wording.Count(int(n), noun)
	case int32:
		return wording.Count(int(n), noun)
	case int:
		return wording.Count(n, noun)
	}
	return fmt.Sprint(n) + " " + noun + "s"
}
