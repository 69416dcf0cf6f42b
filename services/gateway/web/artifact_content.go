package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// refusal is why a download did not begin, for people and for programs.
type refusal struct {
	code  int // of HTTP
	kind  codes.Code
	shown errorPage
}

func (r refusal) Error() string {
	lower := func(text string) string { return strings.ToLower(text[:1]) + text[1:] }
	return lower(r.shown.Title) + ": " + strings.TrimSuffix(lower(r.shown.Text), ".")
}

// GRPCStatus has the JSON API say it as it says what a room refuses.
func (r refusal) GRPCStatus() *status.Status {
	return rpc.WithReason(status.New(r.kind, r.Error()))
}

func noSuchArtifact() refusal {
	return refusal{http.StatusNotFound, codes.NotFound, errorPage{
		Title: "There is no such artifact",
		Text:  "The address may be incomplete, or the time for which it was kept is over.",
	}}
}

func noSuchFile(artifact, file string) refusal {
	return refusal{http.StatusNotFound, codes.NotFound, errorPage{
		Title: "There is no such file", Text: fmt.Sprintf("Artifact %s has no file %s.", artifact, file),
	}}
}

// RegisterContent adds what the JSON API has for programs that fetch what a build has
// left. fail answers a request that was refused, as the JSON API does.
func RegisterContent(p *Pages, mux *http.ServeMux, fail func(http.ResponseWriter, *http.Request, error)) {
	mux.HandleFunc("GET /v1/builds/{id}/artifacts/{name}/content", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if shown := r.Header.Get("Authorization"); shown != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", shown)
		}
		asked, a := r.WithContext(ctx), p.artifacts
		query := r.URL.Query()
		artifact, err := a.choose(ctx, r.PathValue("id"), query.Get("job"), r.PathValue("name"))
		switch {
		case err != nil:
		case query.Get("file") == "":
			err = a.sendZip(w, asked, artifact)
		default:
			err = a.sendFile(w, asked, artifact, query.Get("file"))
		}
		if err != nil {
			fail(w, r, err)
		}
	})
}

// choose is the artifact of that name which a build or a job has left, or which the job of
// the build has that is called so, by its title or its name. Of a build it is enough that
// one job has left it.
func (a *artifacts) choose(ctx context.Context, id, job, name string) (*schedulerv1.Artifact, error) {
	answer, err := a.client.ListArtifacts(ctx, &schedulerv1.ListArtifactsRequest{BuildId: id})
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(answer.GetArtifacts(), func(one *schedulerv1.Artifact) bool { return one.GetName() != name })
	if job == "" {
		if own := slices.IndexFunc(found, func(one *schedulerv1.Artifact) bool { return one.GetBuildId() == id }); own >= 0 {
			return found[own], nil
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	if len(found) == 0 {
		return nil, noSuchArtifact()
	}
	build, err := a.builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
	if err != nil {
		return nil, err
	}
	var titles []string
	named := map[string]*schedulerv1.Artifact{} // by what a job is called; nil: several are
	for _, j := range build.GetBuild().GetJobs() {
		n := slices.IndexFunc(found, func(one *schedulerv1.Artifact) bool { return one.GetBuildId() == j.GetId() })
		if n < 0 {
			continue
		}
		titles = append(titles, j.GetTitle())
		for _, called := range slices.Compact([]string{j.GetTitle(), j.GetName()}) {
			if _, twice := named[called]; twice {
				named[called] = nil
				continue
			}
			named[called] = found[n]
		}
	}
	if one := named[job]; job != "" && one != nil {
		return one, nil
	}
	if _, several := named[job]; job == "" || several {
		return nil, fault.Newf(fault.Invalid, "several jobs have left %s: ask with job=, which is one of %s", name, strings.Join(titles, ", "))
	}
	return nil, fault.Newf(fault.NotFound, "no job %s has left %s: these have, %s", job, name, strings.Join(titles, ", "))
}
