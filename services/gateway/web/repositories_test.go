package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// answers is a room that has one answer to each method, and NotFound to others.
type answers map[string]proto.Message

func (a answers) Invoke(_ context.Context, method string, _, reply any, _ ...grpc.CallOption) error {
	answer, has := a[method]
	if !has {
		return fault.New(fault.NotFound, "nothing was built of it")
	}
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

func (answers) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.New(fault.Unavailable, "there are no streams")
}

// shown is the page at a path.
func shown(t *testing.T, room answers, path string) (code int, body string) {
	t.Helper()
	p, err := New(Deps{
		Scheduler: room, Config: room, Base: "/ci", GitHubURL: "https://github.example", Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return at(0).AsTime() },
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p.Register(mux)
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

const evil = `</pre><script>alert(1)</script>"'&`

func repositoryAnswers() answers {
	return answers{
		schedulerv1.BuildService_ListRepositories_FullMethodName: &schedulerv1.ListRepositoriesResponse{
			Repositories: []*schedulerv1.BuiltRepository{{
				Repository:  &eventv1.Repository{Owner: "acme", Name: "shop"},
				NewestBuild: &schedulerv1.Build{Id: "b1", Title: evil, State: schedulerv1.Build_STATE_PASSED, CreateTime: at(0)},
			}},
			NextPageToken: "n&xt",
		},
		schedulerv1.TestService_ListFlakyTests_FullMethodName: &schedulerv1.ListFlakyTestsResponse{Tests: []*schedulerv1.FlakyTest{
			{Name: evil, Class: evil, Commits: 2, Sha: "0123456789", FailedBuildId: "b1", PassedBuildId: "b2", LastTime: at(0)},
		}},
		schedulerv1.TestService_ListTestHistory_FullMethodName: &schedulerv1.ListTestHistoryResponse{Tests: []*schedulerv1.Test{
			{Name: "total", State: schedulerv1.Test_STATE_FAILED, Message: evil, BuildId: "b1", Sha: "0123456789", Branch: evil, CreateTime: at(0)},
		}},
		schedulerv1.ScheduleService_ListSchedules_FullMethodName: &schedulerv1.ListSchedulesResponse{Schedules: []*schedulerv1.Schedule{
			{Name: "nightly", Cron: "17 3 * * *", Zone: "Europe/Berlin", NextTime: at(60), LastTime: at(-60), LastBuildId: "b3", Problem: evil},
		}},
		schedulerv1.CacheService_ListCaches_FullMethodName: &schedulerv1.ListCachesResponse{StoredBytes: 2048, Caches: []*schedulerv1.Cache{
			{Key: evil, Scope: "pull/7", Size: 1 << 20, Files: 3, BuildId: "b4", CreateTime: at(0), UseTime: at(0)},
		}},
		schedulerv1.SecretService_ListSecrets_FullMethodName: &schedulerv1.ListSecretsResponse{Secrets: []*schedulerv1.Secret{
			{Name: "TOKEN", Uses: []schedulerv1.Secret_Use{schedulerv1.Secret_USE_PUSHES, schedulerv1.Secret_USE_TAGS}, Branches: []string{"main", evil}, UpdateTime: at(0)},
			{Name: "KEY", Environment: "production", UpdateTime: at(0)},
		}},
		configv1.InstallationService_ListInstallations_FullMethodName: &configv1.ListInstallationsResponse{Installations: []*configv1.Installation{
			{Account: "acme", RepositorySelection: "selected", HtmlUrl: "https://github.example/settings/installations/1", SuspendTime: at(0)},
			{Account: evil, RepositorySelection: "all", HtmlUrl: "javascript:alert(1)"},
		}},
		configv1.BuildConfigService_ShowBuildConfig_FullMethodName: &configv1.ShowBuildConfigResponse{
			Sha: "0123456789", Branch: "main", File: ".forge.yml", Content: "image: go\nexecute: |\n  " + evil + "\n",
			Outcome: &configv1.ShowBuildConfigResponse_Config{Config: &configv1.BuildConfig{
				Image: "go",
				Execute: &configv1.Pipeline{Jobs: []*configv1.Job{
					{Name: "test", Commands: []*configv1.Command{{Run: evil}}, Needs: []string{"lint"}}, {Name: "test"}, {Name: "lint", Image: "lint:1"},
				}},
				Push: &configv1.Push{Branches: []string{"main"}, Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Run: "make push"}}}},
			}},
		},
	}
}

func TestPagesOfARepositoryShowWhatIsKept(t *testing.T) {
	for path, want := range map[string][]string{
		"/repositories":                                    {`href="/ci/repositories/acme/shop/file"`, "passed", `href="?from=n%26xt"`, "selected repositories", "suspended", `href="#ZgotmplZ"`},
		"/repositories/acme/shop/file":                     {"valid", "a pull request", "2 cells", "after lint", "<code>lint:1</code>", "a push of main", "make push", `id="L3"`},
		"/repositories/acme/shop/tests":                    {"2 commits", `href="/ci/builds/b1">failed`, `/ci/repositories/acme/shop/tests/history?class=`},
		"/repositories/acme/shop/schedules":                {"17 3 * * *", "Europe/Berlin", `href="/ci/builds/b3"`, "cannot be read now"},
		"/repositories/acme/shop/caches":                   {"2.0 KiB", "pull/7", "3 files, 1.0 MiB", `href="/ci/builds/b4">saved`},
		"/repositories/acme/shop/secrets":                  {"TOKEN", "for pushes, tags, of main", "for deploys to production"},
		"/repositories/acme/shop/secrets?x=":               {`<a href="/ci/repositories/acme/shop/secrets" aria-current="true">Secrets</a>`},
		"/repositories/acme/shop/tests/history?test=total": {"failed", "<code>0123456</code>", `value="total"`},
	} {
		t.Run(path, func(t *testing.T) {
			code, body := shown(t, repositoryAnswers(), path)
			for _, text := range want {
				if code != http.StatusOK || !strings.Contains(body, text) {
					t.Errorf("%d, no %s in\n%s", code, text, body)
				}
			}
			if strings.Contains(body, "<script>") || strings.Count(body, "&lt;script&gt;") == 0 && strings.Contains(body, "alert") {
				t.Errorf("what others wrote became markup:\n%s", body)
			}
		})
	}
}

func TestFileIsShownWithItsErrorsAtTheirLines(t *testing.T) {
	room := repositoryAnswers()
	answer := room[configv1.BuildConfigService_ShowBuildConfig_FullMethodName].(*configv1.ShowBuildConfigResponse)
	answer.Outcome = &configv1.ShowBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{Problems: []*configv1.ConfigInvalid_Problem{
		{Line: 2, Column: 1, Message: `unknown key "exceute"`, File: ".forge.yml"}, {Line: 900, Column: 1, Message: "of no line"},
	}}}
	_, body := shown(t, room, "/repositories/acme/shop/file")
	for _, want := range []string{"2 errors", "</a>execute: |\n</span><span class=\"problem\">2:1 unknown key &#34;exceute&#34;", "of no line", `wrong" data-failure`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	for text, outcome := range map[string]*configv1.ShowBuildConfigResponse{
		"nothing is built of it":  {Sha: "0123456789", Outcome: &configv1.ShowBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}},
		"the App may not read it": {Outcome: &configv1.ShowBuildConfigResponse_Forbidden{Forbidden: &configv1.ConfigForbidden{Message: "the App may not read it"}}},
	} {
		room[configv1.BuildConfigService_ShowBuildConfig_FullMethodName] = outcome
		if _, body := shown(t, room, "/repositories/acme/shop/file?ref=main"); !strings.Contains(body, text) {
			t.Errorf("no %s in\n%s", text, body)
		}
	}
}

func TestRepositoryThatIsNotThereSaysSo(t *testing.T) {
	for _, page := range []string{"file", "tests", "schedules", "caches", "secrets"} {
		code, body := shown(t, answers{}, "/repositories/acme/nope/"+page)
		if code != http.StatusNotFound || !strings.Contains(body, "There is no such repository here") {
			t.Errorf("%s: %d %s", page, code, body)
		}
	}
	if code, body := shown(t, answers{}, "/repositories/acme/nope/tests/history?test=x"); code != http.StatusOK || !strings.Contains(body, "No test of this name") {
		t.Errorf("%d %s", code, body)
	}
}
