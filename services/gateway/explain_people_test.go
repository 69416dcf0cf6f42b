package gateway

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// toldGitHub is what the reporter lists.
type toldGitHub struct {
	reporterv1.UnimplementedReporterServiceServer
	all []*reporterv1.Target
}

func (r *toldGitHub) ListTargets(context.Context, *reporterv1.ListTargetsRequest) (*reporterv1.ListTargetsResponse, error) {
	return &reporterv1.ListTargetsResponse{Targets: r.all}, nil
}

// Whoever can read the repository is told; nobody else, by no way of naming it, and never
// what became of another repository that had the name before.
func TestWhoCanReadTheRepositoryIsTold(t *testing.T) {
	w := newSignIns(t, nil)
	id, _, err := w.sim.Identify("acme", "site")
	if err != nil {
		t.Fatal(err)
	}
	shop, _, err := w.sim.Identify("acme", "shop")
	if err != nil {
		t.Fatal(err)
	}
	const own, old, secret = "aaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccccccccc"
	build := func(id, name string, repository int64, number int32, title string, at time.Time) *schedulerv1.Build {
		return &schedulerv1.Build{
			Id: id, Repository: &eventv1.Repository{Id: repository, Owner: "acme", Name: name}, PullRequest: number, Sha: sha40(int(number)), Title: title,
			Context: "forge/test", State: schedulerv1.Build_STATE_FAILED, Message: title, CreateTime: timestamppb.New(at), Attempt: 1,
		}
	}
	now := time.Now()
	public, private := build(own, "site", id, 7, "own", now.Add(time.Hour)), build(secret, "shop", shop, 5, "private", now)
	former := build(old, "site", id+1000, 7, "hush", now.Add(-time.Hour))
	w.rooms.builds.listed = []*schedulerv1.Build{public, former, private}
	w.rooms.builds.build = private
	w.rooms.told.all = []*reporterv1.Target{
		{Repository: public.GetRepository(), Context: "forge/test", DesiredState: "failure", Description: "told"},
		{Repository: former.GetRepository(), Context: "forge/test", DesiredState: "failure", Description: "hushed"},
	}
	rita, _ := w.signIn("rita")
	stan, _ := w.signIn("stan")
	ask := func(address string, shows func(*http.Request)) (int, string) {
		answer, text := w.as(shows, http.MethodGet, "/v1/deliveries:explain?address="+address, nil)
		return answer.StatusCode, text
	}
	for name, c := range map[string]struct {
		address string
		shows   func(*http.Request)
		code    int
	}{
		"a reader":                       {"acme/shop%235", rita, http.StatusOK},
		"a reader, by the build":         {secret, rita, http.StatusOK},
		"somebody else":                  {"acme/shop%235", stan, http.StatusForbidden},
		"somebody else, by the build":    {secret, stan, http.StatusForbidden},
		"somebody else, by its page":     {"https://forge.example/builds/" + secret, stan, http.StatusForbidden},
		"a stranger":                     {"acme/shop%235", nil, http.StatusUnauthorized},
		"a stranger, by the build":       {secret, nil, http.StatusUnauthorized},
		"a stranger, of what is public":  {"acme/site%237", nil, http.StatusOK},
		"somebody, of a folder":          {"acme/../shop%235", stan, http.StatusBadRequest},
		"somebody, of nothing":           {"", stan, http.StatusBadRequest},
		"the admin token":                {"acme/shop%235", bearer(adminToken), http.StatusOK},
		"what is not there, by its id":   {old, stan, http.StatusNotFound},
		"what is not there, by its name": {"acme/none%231", stan, http.StatusForbidden},
	} {
		code, text := ask(c.address, c.shows)
		if code != c.code || code != http.StatusOK && strings.Contains(text, "private") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}

	code, text := ask("acme/site%237", stan)
	var answer gatewayv1.ExplainAddressResponse
	if err := protojson.Unmarshal([]byte(text), &answer); err != nil || code != http.StatusOK {
		t.Fatal(code, text, err)
	}
	if len(answer.GetBuilds()) != 1 || answer.GetAnswer() != "forge/test failed: own." || len(answer.GetTargets()) != 1 || strings.Contains(text, "hush") {
		t.Errorf("of a name that another repository had: %s", text)
	}
}
