package web

import (
	"net/http"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// environmentPages are the pages of what is deployed where.
type environmentPages struct{ *Pages }

// environmentsPage lists what is deployed where.
type environmentsPage struct {
	Query         query
	Chips         []chip
	Environments  []*schedulerv1.Environment
	Newest, Older string
	Everything    string
}

// Filter is the value of a filter of the list.
func (l *environmentsPage) Filter(name string) string { return l.Query.Get(name) }

func (p environmentPages) environmentList(w http.ResponseWriter, r *http.Request) {
	q := p.readQuery(r, "/environments", "repository")
	shown := &environmentsPage{Query: q, Chips: q.chips([2]string{"repository", "repository"}), Newest: q.newest(), Everything: q.path}
	answer, err := p.environments.ListEnvironments(r.Context(), &schedulerv1.ListEnvironmentsRequest{Repository: q.Get("repository"), PageToken: q.Get("page")})
	if err != nil {
		p.fails(w, r, "ListEnvironments", err)
		return
	}
	shown.Environments, shown.Older = answer.GetEnvironments(), q.older(answer.GetNextPageToken())
	p.render(w, r, http.StatusOK, "environments.html", shown)
}

// environmentPage is what the page of an environment shows.
type environmentPage struct {
	*schedulerv1.Environment
	Viewer        viewer
	May           bool // who looks may steer it
	History       []*schedulerv1.Build
	Newest, Older string
	Done          string // what was just done, in words
}

func (p environmentPages) environment(w http.ResponseWriter, r *http.Request) {
	repository, name := r.PathValue("owner")+"/"+r.PathValue("repo"), r.PathValue("name")
	answer, err := p.environments.GetEnvironment(r.Context(), &schedulerv1.GetEnvironmentRequest{Repository: repository, Environment: name})
	if err != nil {
		p.fails(w, r, "GetEnvironment", err)
		return
	}
	q := p.readQuery(r, address("/environments", r.PathValue("owner"), r.PathValue("repo"), name))
	deploys, err := p.builds.ListBuilds(r.Context(), &schedulerv1.ListBuildsRequest{Repository: repository, Environment: name, PageSize: 20, PageToken: q.Get("page")})
	if err != nil {
		p.fails(w, r, "ListBuilds", err)
		return
	}
	p.render(w, r, http.StatusOK, "environment.html", &environmentPage{
		Environment: answer.GetEnvironment(), Viewer: p.viewerOf(r.Context()),
		May: p.may(r.Context(), schedulerv1.EnvironmentService_FreezeEnvironment_FullMethodName, &schedulerv1.FreezeEnvironmentRequest{Repository: repository, Environment: name}), History: deploys.GetBuilds(),
		Newest: q.newest(), Older: q.older(deploys.GetNextPageToken()),
		Done: map[string]string{
			"frozen": "Frozen: no further deploy begins.", "unfrozen": "No longer frozen: the deploys that wait go on.",
			"approved": "Approved.", "released": "Released.",
		}[r.URL.Query().Get("done")],
	})
}

// RollsBackTo reports whether an earlier deploy can be made once more: it passed, and is
// not what runs.
func (e *environmentPage) RollsBackTo(b *schedulerv1.Build) bool {
	return b.GetState() == schedulerv1.Build_STATE_PASSED && b.GetId() != e.GetDeployed().GetId()
}

// Runs reports whether a deploy is what runs there.
func (e *environmentPage) Runs(b *schedulerv1.Build) bool {
	return b.GetId() == e.GetDeployed().GetId()
}

// steerEnvironment does what a form of an environment's page asks for, and shows the
// page, or the build that was made, after it.
func (p environmentPages) steerEnvironment(w http.ResponseWriter, r *http.Request) {
	ctx, repository, name := r.Context(), r.PathValue("owner")+"/"+r.PathValue("repo"), r.PathValue("name")
	then := address(p.deps.Base+"/environments", r.PathValue("owner"), r.PathValue("repo"), name)
	var err error
	switch r.PathValue("wish") {
	case "freeze":
		_, err = p.environments.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{Repository: repository, Environment: name, Message: strings.TrimSpace(r.PostFormValue("message"))})
		then += "?done=frozen"
	case "unfreeze":
		_, err = p.environments.UnfreezeEnvironment(ctx, &schedulerv1.UnfreezeEnvironmentRequest{Repository: repository, Environment: name})
		then += "?done=unfrozen"
	case "release":
		_, err = p.environments.ReleaseEnvironment(ctx, &schedulerv1.ReleaseEnvironmentRequest{Repository: repository, Environment: name, Force: true, By: "the page of the environment"})
		then += "?done=released"
	case "roll-back":
		var made *schedulerv1.RollBackEnvironmentResponse
		made, err = p.environments.RollBackEnvironment(ctx, &schedulerv1.RollBackEnvironmentRequest{Repository: repository, Environment: name, BuildId: r.PostFormValue("build")})
		then = address(p.deps.Base+"/builds", made.GetBuild().GetId())
	case "approve":
		_, err = p.builds.ApproveBuild(ctx, &schedulerv1.ApproveBuildRequest{BuildId: r.PostFormValue("build")})
		then += "?done=approved"
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		p.fails(w, r, r.PathValue("wish"), err)
		return
	}
	http.Redirect(w, r, then, http.StatusSeeOther)
}
