package web

import (
	"net/http"
	"strconv"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// testsShown is how many tests or findings one page of them shows.
const testsShown = 200

// testRow is a test as pages show it.
type testRow struct {
	*schedulerv1.Test
	Link    string // to its place on GitHub; empty where that is not known
	BaseRef string
	New     bool // it does not pass, and does on the base branch
	Took    string
}

func newTestRow(links links, b *schedulerv1.Build, t *schedulerv1.Test, sum *schedulerv1.TestSummary) testRow {
	row := testRow{Test: t, Link: links.file(b, t.GetFile(), t.GetLine()), BaseRef: sum.GetBaseRef()}
	row.New = sum != nil && sum.FailsOnBase != nil && !t.GetFailsOnBase() &&
		(t.GetState() == schedulerv1.Test_STATE_FAILED || t.GetState() == schedulerv1.Test_STATE_ERRORED)
	if t.GetDuration() != nil {
		row.Took = took(t.GetDuration().AsDuration())
	}
	return row
}

// findingRow is a finding as pages show it.
type findingRow struct {
	*schedulerv1.Finding
	Link string // to its place on GitHub; empty where that is not known
}

// filter is one of several views of a list.
type filter struct {
	Name, Link string
	Count      int64 // 0: not said
	Current    bool
}

// testsPage is what the pages of a build's tests and findings show.
type testsPage struct {
	What     string
	Build    *schedulerv1.Build
	Filters  []filter
	Tests    []testRow
	Findings []findingRow
	Reported bool // there are some, whatever is asked for
	LeftOut  int64
	Next     string // the address of the page after; empty on the last
}

// testsOf is the page of all tests of a build, or of a job.
func (p *Pages) testsOf(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	request := &schedulerv1.ListTestsRequest{BuildId: r.PathValue("id"), PageSize: testsShown, PageToken: query.Get("from")}
	switch query.Get("state") {
	case "failed":
		request.States = []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED}
	case "skipped":
		request.States = []schedulerv1.Test_State{schedulerv1.Test_STATE_SKIPPED}
	case "passed":
		request.States = []schedulerv1.Test_State{schedulerv1.Test_STATE_PASSED}
	}
	if query.Get("order") == "slowest" {
		request.Order = schedulerv1.ListTestsRequest_ORDER_SLOWEST
	}
	build, err := p.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		p.showError(w, r, "GetBuild", err)
		return
	}
	told, err := p.tests.ListTests(r.Context(), request)
	if err != nil {
		p.showError(w, r, "ListTests", err)
		return
	}
	sum := told.GetSummary()
	shown := testsPage{What: "Tests", Build: build.GetBuild(), LeftOut: sum.GetLeftOut()}
	shown.Reported = sum.GetPassed()+sum.GetSkipped()+sum.GetFailed()+sum.GetErrored() > 0
	shown.Filters = p.testFilters(r, sum)
	for _, test := range told.GetTests() {
		shown.Tests = append(shown.Tests, newTestRow(p.links, build.GetBuild(), test, sum))
	}
	shown.Next = nextPage(r, told.GetNextPageToken())
	p.render(w, r, http.StatusOK, "tests.html", shown)
}

// testFilters are the views of a build's tests.
func (p *Pages) testFilters(r *http.Request, sum *schedulerv1.TestSummary) []filter {
	path := address(p.deps.Base+"/builds", r.PathValue("id"), "tests")
	all := []filter{
		{Name: "all", Link: path},
		{Name: "failed", Link: path + "?state=failed", Count: sum.GetFailed() + sum.GetErrored()},
		{Name: "skipped", Link: path + "?state=skipped", Count: sum.GetSkipped()},
		{Name: "passed", Link: path + "?state=passed", Count: sum.GetPassed()},
		{Name: "slowest", Link: path + "?order=slowest"},
		{Name: "findings", Link: address(p.deps.Base+"/builds", r.PathValue("id"), "findings"), Count: sum.GetFindings()},
	}
	state, order := r.URL.Query().Get("state"), r.URL.Query().Get("order")
	for n := range all {
		switch all[n].Name {
		case "all":
			all[n].Current = state == "" && order == ""
		case "slowest":
			all[n].Current = order == "slowest"
		default:
			all[n].Current = order == "" && state == all[n].Name
		}
	}
	return all
}

// findingsOf is the page of all findings of a build, or of a job.
func (p *Pages) findingsOf(w http.ResponseWriter, r *http.Request) {
	build, err := p.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		p.showError(w, r, "GetBuild", err)
		return
	}
	told, err := p.tests.ListFindings(r.Context(), &schedulerv1.ListFindingsRequest{
		BuildId: r.PathValue("id"), PageSize: testsShown, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		p.showError(w, r, "ListFindings", err)
		return
	}
	shown := testsPage{What: "Findings", Build: build.GetBuild(), Reported: true, Next: nextPage(r, told.GetNextPageToken())}
	shown.Filters = []filter{
		{Name: "tests", Link: address(p.deps.Base+"/builds", r.PathValue("id"), "tests")},
		{Name: "findings", Link: address(p.deps.Base+"/builds", r.PathValue("id"), "findings"), Current: true},
	}
	for _, f := range told.GetFindings() {
		shown.Findings = append(shown.Findings, findingRow{f, p.links.file(build.GetBuild(), f.GetFile(), f.GetLine())})
	}
	p.render(w, r, http.StatusOK, "tests.html", shown)
}

// nextPage is the address of the page after this one; empty where there is none.
func nextPage(r *http.Request, token string) string {
	if token == "" {
		return ""
	}
	query := r.URL.Query()
	query.Set("from", token)
	return "?" + query.Encode()
}

// links leads to what GitHub shows.
type links struct{ github string }

// file is the address of a line of a file at the commit of a build; empty where the
// file's name could lead elsewhere.
func (l links) file(b *schedulerv1.Build, name string, line int32) string {
	if name == "" || b.GetSha() == "" {
		return ""
	}
	at := address(l.github, append([]any{b.GetRepository().GetOwner(), b.GetRepository().GetName(), "blob", b.GetSha()}, steps(name)...)...)
	if at != "" && line > 0 {
		at += "#L" + strconv.Itoa(int(line))
	}
	return at
}
