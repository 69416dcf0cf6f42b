package web

import (
	"net/http"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// steerForm is a button at a build. What changes something out there is asked about
// before it is believed.
type steerForm struct {
	Build, Wish, Text, CSRF string
	Confirm, What           string
}

// Steer is the form of one button at the build.
func (s *buildPage) Steer(wish, text string) steerForm {
	form := steerForm{Build: s.Build.GetId(), Wish: wish, Text: text, CSRF: s.Viewer.CSRF}
	if form.What = confirmText(s.Build); form.What != "" {
		form.Confirm = map[string]string{
			"retry": "Run this " + form.What + " again?", "retry-failed": "Run what failed of this " + form.What + " again?",
			"approve": "Let this " + form.What + " run?", "cancel": "Cancel this " + form.What + "?",
			"expedite": "Put this " + form.What + " before all that wait?",
		}[wish]
	}
	return form
}

// steerBuild does what a form of a build's page asks for.
func (p *Pages) steerBuild(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), r.PathValue("id")
	then := id
	var err error
	switch r.PathValue("wish") {
	case "retry", "retry-failed":
		var made *schedulerv1.RetryBuildResponse
		made, err = p.builds.RetryBuild(ctx, &schedulerv1.RetryBuildRequest{BuildId: id, FailedOnly: r.PathValue("wish") == "retry-failed"})
		then = made.GetBuild().GetId()
	case "cancel":
		_, err = p.builds.CancelBuild(ctx, &schedulerv1.CancelBuildRequest{BuildId: id})
	case "expedite":
		_, err = p.builds.ExpediteBuild(ctx, &schedulerv1.ExpediteBuildRequest{BuildId: id})
	case "approve":
		_, err = p.builds.ApproveBuild(ctx, &schedulerv1.ApproveBuildRequest{BuildId: id})
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		p.fails(w, r, r.PathValue("wish"), err)
		return
	}
	http.Redirect(w, r, address(p.deps.Base+"/builds", then), http.StatusSeeOther)
}
