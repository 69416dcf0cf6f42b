package web

import (
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/trace"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/gateway/traces"
	"github.com/forge-ci/forge/services/kit/fault"
)

// tracePage is what the page of a trace shows.
type tracePage struct {
	ID        string
	Build     *schedulerv1.Build // whose part alone is shown; nil: the whole trace is
	Waterfall *waterfall
}

// traceAddress is where a trace is shown: here, or where traces are kept elsewhere. With a
// build its part of the trace alone is shown here, to whoever may see the build.
func traceAddress(deps Deps, id, build string) string {
	switch {
	case deps.TraceURL != "":
		return strings.ReplaceAll(deps.TraceURL, "{trace_id}", url.PathEscape(id))
	case build != "":
		return address(deps.Base+"/traces", id) + "?" + url.Values{"build": {build}}.Encode()
	default:
		return address(deps.Base+"/traces", id)
	}
}

// trace shows a trace: the whole to operators, the part of a build to who may see that.
func (p *Pages) trace(w http.ResponseWriter, r *http.Request) {
	shown := tracePage{ID: r.PathValue("id")}
	if build := r.URL.Query().Get("build"); build != "" {
		answer, err := p.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: build})
		if err != nil {
			p.showError(w, r, "GetBuild", err)
			return
		}
		shown.Build = answer.GetBuild()
	} else if _, err := p.deliveries.ListDeliveries(r.Context(), &gatewayv1.ListDeliveriesRequest{PageSize: 1}); err != nil {
		p.fails(w, r, "ListDeliveries", err) // who may see deliveries may see what came of them
		return
	}
	whole, found := p.traceOf(shown)
	if !found {
		p.fails(w, r, "trace", fault.New(fault.NotFound, "this trace is not kept, or not any more: traces of the last hours are, as far as FORGE_TRACES_MEMORY allows"))
		return
	}
	shown.Waterfall = waterfallOf(whole)
	p.render(w, r, http.StatusOK, "trace.html", shown)
}

// traceOf is what is kept of a trace, as far as it is to be shown.
func (p *Pages) traceOf(shown tracePage) (traces.Trace, bool) {
	id, err := trace.TraceIDFromHex(shown.ID)
	if err != nil || p.deps.Traces == nil {
		return traces.Trace{}, false
	}
	whole, found := p.deps.Traces.Trace(id)
	if !found || shown.Build == nil {
		return whole, found
	}
	if shown.Build.GetTraceId() != shown.ID {
		return traces.Trace{}, false
	}
	ids := map[string]bool{shown.Build.GetId(): true}
	for _, job := range shown.Build.GetJobs() {
		ids[job.GetId()] = true
	}
	return ofRuns(whole, ids), true
}
