package web

import (
	"net/http"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// buildPage is what the page of a build shows.
type buildPage struct {
	Build  *schedulerv1.Build
	Viewer viewer
	Tests  reported
	Log    *logView // nil: it has none of its own, or it is not asked for
	Left   []group
	Graph  *graph // nil: no job needs another
	// Bars are the timelines of its jobs, or its own alone.
	Bars []bar
	Took string // how long the scale of the bars is
	// May is that who looks may steer it.
	May bool
	// MayExpedite is that who looks may put it before all that wait.
	MayExpedite bool
	// Unlisted is that what is left could not be asked for.
	Unlisted bool
}

func (p *Pages) build(w http.ResponseWriter, r *http.Request) {
	resp, err := p.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		p.showError(w, r, "GetBuild", err)
		return
	}
	shown := &buildPage{Build: resp.GetBuild(), Viewer: p.viewerOf(r.Context()), Tests: p.reported(r.Context(), resp.GetBuild())}
	shown.May = p.may(r.Context(), schedulerv1.BuildService_CancelBuild_FullMethodName, &schedulerv1.CancelBuildRequest{BuildId: shown.Build.GetId()})
	shown.MayExpedite = shown.Build.GetLine() != nil &&
		p.may(r.Context(), schedulerv1.BuildService_ExpediteBuild_FullMethodName, &schedulerv1.ExpediteBuildRequest{BuildId: shown.Build.GetId()})
	// The script asks for ?log=0 when only the state has changed.
	if r.URL.Query().Get("log") != "0" && shown.Build.GetJobCount() == 0 {
		shown.Log = p.logs.view(r, shown.Build)
	}
	if shown.Left, err = p.artifacts.of(r.Context(), shown.Build); err != nil {
		p.deps.Log.WarnContext(r.Context(), "ListArtifacts failed; the page of the build shows no artifacts", "build", shown.Build.GetId(), "error", err)
		shown.Unlisted = true
	}
	shown.draw(p.deps.Now())
	p.render(w, r, http.StatusOK, "build.html", shown)
}

// draw makes the pictures of a build: how long what took, and what waits for what.
func (s *buildPage) draw(now time.Time) {
	b := s.Build
	if b.GetCreateTime() == nil {
		return
	}
	scale := scaleOf(b, now)
	s.Graph, s.Took = graphOf(b.GetJobs()), took(scale.end.Sub(scale.start))
	for _, job := range b.GetJobs() {
		s.Bars = append(s.Bars, scale.bar(job, wording.Value(job.GetState()), nil))
	}
	if b.GetJobCount() == 0 {
		s.Bars = []bar{scale.bar(b, wording.Value(b.GetState()), b.GetSteps())}
	}
}

// Bar is the timeline of one of its jobs; empty where there is none to draw.
func (s *buildPage) Bar(job int) bar {
	if job >= len(s.Bars) {
		return nil
	}
	return s.Bars[job]
}
