package web

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// buildLists are the pages that list builds.
type buildLists struct{ *Pages }

// choice is an option of a filter.
type choice struct {
	Value, Text string
	Chosen      bool
}

// chip is a filter that is set, and the address of the same list without it.
type chip struct{ Name, Value, Without string }

// query is what the address of a list asks for: filters, and where its page begins.
type query struct {
	path   string
	values url.Values // those that are not empty
}

// readQuery reads the filters of these names from an address; others are left out.
func (p *Pages) readQuery(r *http.Request, path string, names ...string) query {
	asked := query{p.deps.Base + path, url.Values{}}
	given := r.URL.Query()
	for _, name := range append(names, "page") {
		if value := strings.TrimSpace(given.Get(name)); value != "" {
			asked.values.Set(name, value)
		}
	}
	return asked
}

// Get is the value of a filter; "" where it is not set.
func (q query) Get(name string) string { return q.values.Get(name) }

// with is the address of the list with a filter set to another value, from its first
// page on; without the filter where the value is "".
func (q query) with(name, value string) string {
	values := url.Values{}
	for other, all := range q.values {
		if other != name && other != "page" {
			values[other] = all
		}
	}
	if value != "" {
		values.Set(name, value)
	}
	if len(values) == 0 {
		return q.path
	}
	return q.path + "?" + values.Encode()
}

// older is the address of the page after this one; "" where there is none.
func (q query) older(token string) string {
	if token == "" {
		return ""
	}
	return q.with("page", token)
}

// newest is the address of the first page; "" where this is it.
func (q query) newest() string {
	if q.Get("page") == "" {
		return ""
	}
	return q.with("page", "")
}

// chips are the filters that are set, in this order.
func (q query) chips(names ...[2]string) (all []chip) {
	for _, name := range names {
		if value := q.Get(name[0]); value != "" {
			all = append(all, chip{name[1], strings.ReplaceAll(value, "_", " "), q.with(name[0], "")})
		}
	}
	return all
}

// choices are what a filter can be set to.
func (q query) choices(name string, values ...string) (all []choice) {
	for _, value := range values {
		all = append(all, choice{value, strings.ReplaceAll(value, "_", " "), q.Get(name) == value})
	}
	return all
}

// Groups of states that people look for together.
const (
	unfinished = "not_ended"
	notPassed  = "not_passed"
)

// states are those that a filter's value means; none means all.
func states(value string) []schedulerv1.Build_State {
	switch value {
	case "":
		return nil
	case unfinished:
		return []schedulerv1.Build_State{
			schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_RUNNING,
		}
	case notPassed:
		return []schedulerv1.Build_State{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_TIMED_OUT}
	default:
		return []schedulerv1.Build_State{schedulerv1.Build_State(schedulerv1.Build_State_value["STATE_"+strings.ToUpper(value)])}
	}
}

// stateNames are the states as filters have them.
func stateNames() []string {
	names := []string{unfinished, notPassed}
	for number := schedulerv1.Build_STATE_QUEUED; number <= schedulerv1.Build_STATE_TIMED_OUT; number++ {
		names = append(names, filterName(wording.Value(number)))
	}
	return names
}

// actionNames are the actions as filters have them.
func actionNames() (names []string) {
	for _, number := range slices.Sorted(maps.Keys(schedulerv1.Build_Action_name)) {
		if number != 0 {
			names = append(names, filterName(wording.Value(schedulerv1.Build_Action(number))))
		}
	}
	return names
}

func filterName(text string) string { return strings.ReplaceAll(text, " ", "_") }

func actionsOf(value string) []schedulerv1.Build_Action {
	if value == "" {
		return nil
	}
	return []schedulerv1.Build_Action{schedulerv1.Build_Action(schedulerv1.Build_Action_value["ACTION_"+strings.ToUpper(value)])}
}

// buildFilters are what a list of builds can be filtered by, with what people call it.
func buildFilters() [][2]string {
	return [][2]string{
		{"repository", "repository"},
		{"pull_request", "pull request"},
		{"branch", "branch"},
		{"base", "base"},
		{"actor", "by"},
		{"state", "state"},
		{"action", "what"},
		{"environment", "environment"},
		{"job", "job"},
		{"sha", "commit"},
	}
}

// ofRepository reports whether a filter means something within a repository alone.
func ofRepository(name string) bool {
	return slices.Contains([]string{"pull_request", "branch", "base", "environment", "job"}, name)
}

// buildList is a list of builds with its filters.
type buildList struct {
	Query           query
	Repository      string // whose page the list is on; "": it is of all
	Chips           []chip
	States, Actions []choice
	Builds          []*schedulerv1.Build
	Newest, Older   string
	Everything      string // the address without filters
	Problem         string
}

// Filter is the value of a filter of the list.
func (l *buildList) Filter(name string) string { return l.Query.Get(name) }

// With is the address of the list with a filter set.
func (l *buildList) With(name, value string) string { return l.Query.with(name, value) }

// listBuilds lists the builds that an address asks for; of one repository where that is
// given. What cannot be asked for is a problem of the list, an error is the caller's.
func (p buildLists) listBuilds(r *http.Request, path, repository string) (*buildList, error) {
	var names []string
	for _, name := range buildFilters() {
		names = append(names, name[0])
	}
	q := p.readQuery(r, path, names...)
	// Links of an older Forge have the states by the names of the API.
	if old := r.URL.Query().Get("states"); old != "" && q.Get("state") == "" {
		q.values.Set("state", strings.ToLower(strings.TrimPrefix(old, "STATE_")))
	}
	list := &buildList{Query: q, Repository: repository, Everything: q.path, Newest: q.newest()}
	of := q.Get("repository")
	if repository != "" {
		q.values.Del("repository")
		of = repository
	}
	list.Chips, list.States, list.Actions = q.chips(buildFilters()...), q.choices("state", stateNames()...), q.choices("action", actionNames()...)
	pull, err := pullNumber(q)
	if err != nil {
		list.Problem = sentence(err)
		return list, nil
	}
	for _, name := range buildFilters() {
		if ofRepository(name[0]) && q.Get(name[0]) != "" && of == "" {
			list.Problem = "A " + name[1] + " is one of a repository: name that as well."
			return list, nil
		}
	}
	answer, err := p.builds.ListBuilds(r.Context(), &schedulerv1.ListBuildsRequest{
		Repository: of, PullRequest: pull, Branch: q.Get("branch"), BaseRef: q.Get("base"), Actor: q.Get("actor"), Sha: q.Get("sha"),
		Job: q.Get("job"), Environment: q.Get("environment"), States: states(q.Get("state")), Actions: actionsOf(q.Get("action")), PageToken: q.Get("page"),
	})
	if problem := invalid(err); problem != "" {
		list.Problem = problem
		return list, nil
	}
	list.Builds, list.Older = answer.GetBuilds(), q.older(answer.GetNextPageToken())
	return list, err
}

// buildsPage is the list of all builds.
func (p buildLists) buildsPage(w http.ResponseWriter, r *http.Request) {
	list, err := p.listBuilds(r, "/builds", "")
	if err != nil {
		p.fails(w, r, "ListBuilds", err)
		return
	}
	p.render(w, r, codeOf(list.Problem), "builds.html", list)
}

// invalid is what is wrong with a request, as a sentence; "" where that is nothing.
func invalid(err error) string {
	if !fault.Is(err, fault.Invalid) {
		return ""
	}
	return sentence(err)
}

// pullNumber is the pull request that a list is filtered by; 0 for none.
func pullNumber(q query) (int32, error) {
	asked := strings.TrimPrefix(q.Get("pull_request"), "#")
	if asked == "" {
		return 0, nil
	}
	number, err := strconv.ParseInt(asked, 10, 32)
	if err != nil || number < 1 {
		return 0, fault.New(fault.Invalid, "a pull request is a number, such as 7")
	}
	return int32(number), nil
}

func codeOf(problem string) int {
	if problem != "" {
		return http.StatusBadRequest
	}
	return http.StatusOK
}
