package web

import (
	"net/http"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// What stands before the names of inputs in a form, so that no input is taken for what
// the form itself has. A secret that is left empty is not given at all.
const inputPrefix, secretPrefix = "input.", "secret."

// runPage is the form by which something is asked for by hand.
type runPage struct {
	repositoryPage

	*schedulerv1.GetManualResponse
	Branch, Tag string
	Viewer      viewer
	May         bool // whoever looks may ask for it
	Given       map[string]string
	Problem     string // why nothing was run
}

// Value is what the field of an input holds at first.
func (s *runPage) Value(input *configv1.Input) string {
	if given, has := s.Given[input.GetName()]; has && !input.GetSecret() {
		return given
	}
	return input.GetDefault()
}

// Field is the name of the field of an input.
func (s *runPage) Field(input *configv1.Input) string {
	if input.GetSecret() {
		return secretPrefix + input.GetName()
	}
	return inputPrefix + input.GetName()
}

func (p *repositories) run(w http.ResponseWriter, r *http.Request) {
	p.showRun(w, r, http.StatusOK, runPage{Branch: r.FormValue("branch"), Tag: r.FormValue("tag")})
}

// showRun shows the form, with what was given before.
func (p *repositories) showRun(w http.ResponseWriter, r *http.Request, code int, shown runPage) {
	shown.repositoryPage, shown.Viewer = p.page(r, "Run", ""), p.viewerOf(r.Context())
	answer, err := p.manual.GetManual(r.Context(), &schedulerv1.GetManualRequest{Repository: shown.Repository, Branch: shown.Branch, Tag: shown.Tag})
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Invalid), fault.Is(err, fault.Conflict): // the form may name another branch
		answer, shown.Problem = &schedulerv1.GetManualResponse{}, sentence(err)
	case err != nil:
		p.fails(w, r, "GetManual", err)
		return
	}
	shown.GetManualResponse = answer
	shown.May = p.may(r.Context(), schedulerv1.BuildService_CreateBuild_FullMethodName, &schedulerv1.CreateBuildRequest{Repository: shown.Repository})
	p.render(w, r, code, "run.html", &shown)
}

// runs asks for what the form says.
func (p *repositories) runs(w http.ResponseWriter, r *http.Request) {
	shown := runPage{Branch: r.PostFormValue("branch"), Tag: r.PostFormValue("tag"), Given: map[string]string{}}
	for name, values := range r.PostForm {
		if input, is := strings.CutPrefix(name, inputPrefix); is && len(values) > 0 {
			shown.Given[input] = strings.ReplaceAll(values[0], "\r\n", "\n") // as a browser ends the lines of a form
		}
		if input, is := strings.CutPrefix(name, secretPrefix); is && len(values) > 0 && values[0] != "" {
			shown.Given[input] = values[0]
		}
	}
	request := &schedulerv1.CreateBuildRequest{
		Repository: repositoryOf(r), Branch: shown.Branch, Tag: shown.Tag,
		Action: schedulerv1.Build_ACTION_MANUAL, Inputs: shown.Given,
	}
	made, err := p.builds.CreateBuild(r.Context(), request)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Invalid), fault.Is(err, fault.Conflict), fault.Is(err, fault.Exists):
		shown.Problem = sentence(err)
		p.showRun(w, r, http.StatusUnprocessableEntity, shown)
	case err != nil:
		p.fails(w, r, "CreateBuild", err)
	default:
		http.Redirect(w, r, address(p.deps.Base+"/builds", made.GetBuild().GetId()), http.StatusSeeOther)
	}
}
