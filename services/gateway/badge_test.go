package gateway

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// badgeBuilds is a scheduler that lists builds of acme's repositories.
type badgeBuilds struct {
	schedulerv1.BuildServiceClient

	all []*schedulerv1.Build
	err error
}

func (b *badgeBuilds) ListBuilds(_ context.Context, req *schedulerv1.ListBuildsRequest, _ ...grpc.CallOption) (*schedulerv1.ListBuildsResponse, error) {
	answer := &schedulerv1.ListBuildsResponse{}
	for _, one := range b.all {
		if strings.HasPrefix(req.GetRepository(), "acme/") && (req.GetBranch() == "" || req.GetBranch() == one.GetBranch()) {
			answer.Builds = append(answer.Builds, one)
		}
	}
	return answer, b.err
}

func TestBadgesShowBranches(t *testing.T) {
	ended := func(context, sha, branch string, state schedulerv1.Build_State) *schedulerv1.Build {
		return &schedulerv1.Build{
			Repository: &eventv1.Repository{Owner: "acme", Name: "shop", DefaultBranch: "main"},
			Context:    context, Sha: sha, Branch: branch, State: state, EndTime: at(1),
		}
	}
	passed, failed := schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_FAILED
	running := ended("forge/push", "ccc", "main", schedulerv1.Build_STATE_RUNNING)
	running.EndTime = nil
	builds := &badgeBuilds{}
	var known error
	b := &badges{builds: builds, key: []byte("key"), log: func(context.Context, string, ...any) {}}
	b.public = func(_ context.Context, of *eventv1.Repository) (bool, error) { return of.GetName() == "open", known }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /badges/{owner}/{name}", b.serve)
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if len(header) > 0 {
			req.Header.Set("If-None-Match", header[0])
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, req)
		return answer
	}
	title := func(answer *httptest.ResponseRecorder) string {
		t.Helper()
		var picture struct {
			Title string `xml:"title"`
		}
		if err := xml.Unmarshal(answer.Body.Bytes(), &picture); err != nil || answer.Header().Get("Content-Type") != "image/svg+xml" {
			t.Errorf("no picture: %v, %s", err, answer.Body)
		}
		return picture.Title
	}

	for name, test := range map[string]struct {
		builds []*schedulerv1.Build
		query  string
		want   string
	}{
		"nothing was built": {nil, "", "forge: not built"},
		"it passed":         {[]*schedulerv1.Build{ended("forge/push", "bbb", "main", passed)}, "", "forge: passing"},
		"a newer one runs":  {[]*schedulerv1.Build{running, ended("forge/push", "bbb", "main", failed)}, "", "forge: failing"},
		"the worst of a commit counts": {
			[]*schedulerv1.Build{ended("forge/push", "bbb", "main", passed), ended("forge/deploy-staging", "bbb", "main", failed)}, "", "forge: failing",
		},
		"a run that was repeated does not": {
			[]*schedulerv1.Build{ended("forge/push", "bbb", "main", passed), ended("forge/push", "bbb", "main", failed)}, "", "forge: passing",
		},
		"older commits do not": {
			[]*schedulerv1.Build{ended("forge/push", "bbb", "main", passed), ended("forge/deploy-staging", "aaa", "main", failed)}, "", "forge: passing",
		},
		"what was cancelled does not": {
			[]*schedulerv1.Build{ended("forge/push", "bbb", "main", schedulerv1.Build_STATE_CANCELLED), ended("forge/push", "aaa", "main", passed)}, "", "forge: passing",
		},
		"a fork's branch of that name does not": {
			[]*schedulerv1.Build{ended("forge/test", "ddd", "mallory:main", failed), ended("forge/push", "bbb", "main", passed)}, "", "forge: passing",
		},
		"another branch": {[]*schedulerv1.Build{ended("forge/push", "eee", "1.x", schedulerv1.Build_STATE_ERRORED)}, "?branch=1.x", "1.x: errored"},
		"a hostile name": {nil, "?branch=%3Cscript%3E%22%27%26" + strings.Repeat("x", 100), `<script>"'&` + strings.Repeat("x", 48) + "…: not built"},
	} {
		t.Run(name, func(t *testing.T) {
			builds.all = test.builds
			answer := get("/badges/acme/open.svg" + test.query)
			if got := title(answer); answer.Code != http.StatusOK || got != test.want {
				t.Errorf("%d %q, want %q", answer.Code, got, test.want)
			}
			if again := get("/badges/acme/open.svg"+test.query, answer.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
				t.Errorf("who has it already gets %d, %d bytes", again.Code, again.Body.Len())
			}
		})
	}

	builds.all = []*schedulerv1.Build{ended("forge/push", "bbb", "main", failed)}
	for path, want := range map[string]string{
		"/badges/acme/shop.svg":                                           "forge: unknown",
		"/badges/acme/shop.svg?token=":                                    "forge: unknown",
		"/badges/acme/shop.svg?token=" + b.token("acme", "open"):          "forge: unknown", // another's
		"/badges/acme/shop.svg?token=" + b.token("acme", "shop"):          "forge: failing",
		"/badges/Acme/Shop.svg?token=" + b.token("acme", "shop"):          "forge: not built", // the scheduler's to compare
		"/badges/acme/shop.png?token=" + b.token("acme", "shop"):          "forge: unknown",
		"/badges/acme/nothing.svg":                                        "forge: unknown",
		"/badges/acme/shop.svg?branch=x&token=" + b.token("acme", "shop"): "x: not built",
	} {
		if got := title(get(path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	known = fault.New(fault.Unavailable, "GitHub is away")
	if answer := get("/badges/acme/shop.svg"); answer.Code != http.StatusNotFound || title(answer) != "forge: unknown" {
		t.Errorf("unsure: %d", answer.Code)
	}
	builds.err = fault.New(fault.Unavailable, "away")
	if answer := get("/badges/acme/open.svg"); answer.Code != http.StatusServiceUnavailable || title(answer) != "forge: unavailable" {
		t.Errorf("without a scheduler: %d", answer.Code)
	}
}
