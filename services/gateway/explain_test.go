package gateway

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestAddressesOfPullRequestsAndCommitsAreRead(t *testing.T) {
	const github, enterprise = "https://github.com", "https://ghe.example/git"
	pull := subject{repository: "acme/shop", pull: 7}
	commit := subject{repository: "acme/shop", sha: "3f2a91c0d5"}
	for _, c := range []struct {
		base, text string
		want       subject
	}{
		{github, "https://github.com/acme/shop/pull/7", pull},
		{github, " <https://www.GitHub.com/acme/shop/pull/7/files?w=1#diff-0> ", pull},
		{github, "http://github.com/acme/shop/pull/7/", pull},
		{github, "github.com/acme/shop/issues/7", pull},
		{github, "acme/shop#7", pull},
		{github, "https://github.com/acme/shop/commit/3F2A91c0d5", commit},
		{github, "https://github.com/acme/shop/commits/3f2a91c0d5/README.md", commit},
		{github, "https://github.com/acme/shop/pull/7/commits/3f2a91c0d5", commit},
		{github, "acme/shop@3f2a91c0d5", commit},
		{enterprise, "https://ghe.example/git/acme/shop/pull/7", pull},
		{enterprise, "ghe.example/git/acme/shop/commit/3f2a91c0d5", commit},
		{enterprise, "acme/shop#7", pull},
		{github, "sblrlyjrpso3v3sun7bl4ve4om", subject{build: "sblrlyjrpso3v3sun7bl4ve4om"}},
		{github, "https://forge.example/ci/builds/sblrlyjrpso3v3sun7bl4ve4om-12/log?line=3", subject{build: "sblrlyjrpso3v3sun7bl4ve4om-12"}},
		{github, "localhost:9098/builds/sblrlyjrpso3v3sun7bl4ve4om", subject{build: "sblrlyjrpso3v3sun7bl4ve4om"}},
	} {
		if got, err := parseSubject(c.base, c.text); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                                    "this is no address of a pull request or a commit",
		"acme/shop":                           "this is no address",
		"https://github.com/acme/shop":        "this is no address",
		"https://github.com/acme/shop/pull/0": "this is no address",
		"https://github.com/acme/shop/pull/99999999999":        "this is no address",
		"https://github.com/acme/shop/pull/../../x":            "this is no address",
		"javascript:alert(1)//acme/shop/pull/7":                "this is no address",
		"https://forge.example/builds/b1?x=/builds/":           "this is no address",
		"https://github.com/builds/sblrlyjrpso3v3sun7bl4ve4om": "this is no address",
		"sblrlyjrpso3v3sun7bl4ve4o1":                           "this is no address",
		"http://[::1":                                          "this is no address",
		"https://gitlab.example/acme/shop/pull/7":              "the address is one of gitlab.example: this Forge serves https://github.com",
		"acme/shop@3f2a":                                       `"3f2a" is no commit: give 7 digits of its sha at least`,
		"acme/shop@" + strings.Repeat("a", 65):                 `"` + strings.Repeat("a", 65) + `" is no commit`,
	} {
		if _, err := parseSubject(github, text); !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	f.Add("https://github.com/acme/shop/pull/7/commits/3f2a91c0d5")
	f.Add("acme/shop@3f2a91c")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSubject("https://github.com", text)
		if err != nil {
			return
		}
		if s.build != "" && s.repository == "" {
			return
		}
		if s.build != "" || (s.pull > 0) == (s.sha != "") || strings.Count(s.repository, "/") != 1 {
			t.Errorf("%q is read as %+v", text, s)
		}
	})
}

// sha40 is a commit as GitHub names it.
func sha40(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n+16), 20) }

func pullOf(number, commit int, more string) []byte {
	text := strings.NewReplacer(`"number":5`, fmt.Sprintf(`"number":%d`, number), `"sha":"a1"`, fmt.Sprintf(`"sha":%q`, sha40(commit))).Replace(string(pullRequestPayload()))
	return []byte(strings.Replace(text, `"synchronize"`, more, 1))
}

// What GitHub told is found by pull request and by commit, whichever the kind of event.
func TestDeliveriesAreListedByPullRequestAndCommit(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		w := start(t, open(), nil)
		small := small()
		for id, h := range map[string]hook{
			"p5": {event: "pull_request", body: pullOf(5, 1, `"opened"`)}, "p6": {event: "pull_request", body: pullOf(6, 2, `"opened"`)},
			"merged": {event: "pull_request", body: []byte(strings.Replace(string(pullOf(5, 1, `"closed"`)), `"draft":true`, `"merged":true,"merge_commit_sha":"`+sha40(9)+`"`, 1))},
			"check":  {event: "check_run", body: []byte(small["check_run"])}, "comment": {event: "issue_comment", body: []byte(small["issue_comment"])},
			"push": {event: "push", body: []byte(strings.ReplaceAll(small["push"], `"a1"`, `"`+sha40(1)+`"`))}, "star": {event: "star", body: star},
		} {
			h.id = id
			w.post(h)
			w.ends(id)
		}
		for name, c := range map[string]struct {
			req  *gatewayv1.ListDeliveriesRequest
			want string
		}{
			"pull request":       {&gatewayv1.ListDeliveriesRequest{Repository: "Acme/Web", PullRequest: 5}, "check comment merged p5"},
			"another repository": {&gatewayv1.ListDeliveriesRequest{Repository: "acme/other", PullRequest: 5}, ""},
			"commit":             {&gatewayv1.ListDeliveriesRequest{Sha: sha40(1)}, "p5 push"},
			"merge commit":       {&gatewayv1.ListDeliveriesRequest{Repository: "acme/web", Sha: sha40(9)}, "merged"},
			"both":               {&gatewayv1.ListDeliveriesRequest{Repository: "acme/web", PullRequest: 6, Sha: sha40(2)}, "p6"},
			"neither":            {&gatewayv1.ListDeliveriesRequest{Sha: "' OR '' = '"}, ""},
		} {
			resp, err := w.deliveries().ListDeliveries(admin(t.Context()), c.req)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			for _, d := range resp.GetDeliveries() {
				found[d.GetId()] = true
			}
			want := strings.Fields(c.want)
			for _, id := range want {
				if !found[id] {
					t.Errorf("%s: %s is not there", name, id)
				}
			}
			if len(found) != len(want) {
				t.Errorf("%s: %v, want %s", name, found, c.want)
			}
		}
		if _, err := w.deliveries().ListDeliveries(admin(t.Context()), &gatewayv1.ListDeliveriesRequest{PullRequest: 5}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a pull request of no repository: %v", err)
		}
	})
}

func TestWhyNothingWasBuiltIsSaid(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.installed.all = []*configv1.Installation{
		{Id: 1, Account: "Acme", RepositorySelection: "selected", HtmlUrl: "https://github.com/settings/installations/1"},
		{Id: 2, Account: "dozing", SuspendTime: timestamppb.Now(), HtmlUrl: "https://github.com/settings/installations/2"},
	}
	decides := func(id string, number, commit int, action string, reason eventv1.Reason, text string, builds ...string) {
		t.Helper()
		w.rooms.answers("scheduler", func(*eventv1.Event) (*eventv1.Decision, error) {
			return &eventv1.Decision{Reason: reason, Text: text, BuildIds: builds}, nil
		})
		w.post(hook{event: "pull_request", id: id, body: pullOf(number, commit, `"`+action+`"`)})
		w.ends(id)
	}
	decides("d1", 5, 1, "opened", eventv1.Reason_REASON_BRANCH_IGNORED, "ignored: base branch is feature/x")
	decides("d2", 5, 1, "labeled", eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action labeled")
	decides("d3", 6, 2, "opened", eventv1.Reason_REASON_BUILT, "built", "b6")
	decides("d4", 6, 3, "synchronize", eventv1.Reason_REASON_SKIP_ASKED, "skipped: [skip ci]")
	decides("d5", 7, 4, "opened", eventv1.Reason_REASON_BUILT, "built", "b7")
	decides("d6", 8, 5, "opened", eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action opened")
	build := func(id string, number int32, commit int, state schedulerv1.Build_State, message string) *schedulerv1.Build {
		return &schedulerv1.Build{Id: id, Repository: &eventv1.Repository{Owner: "acme", Name: "web"}, PullRequest: number, Sha: sha40(commit), Context: "forge/test", State: state, Message: message}
	}
	w.rooms.builds.listed = []*schedulerv1.Build{
		build("b7", 7, 4, schedulerv1.Build_STATE_FAILED, "step 1 ended with exit code 1"), build("b6", 6, 2, schedulerv1.Build_STATE_PASSED, ""),
	}
	for address, want := range map[string]string{
		"https://github.com/acme/web/pull/5": "Nothing was built: base branch is feature/x.|FORGE_INTEGRATION_BRANCHES",
		"acme/web@" + sha40(1)[:32]:          "Nothing was built: base branch is feature/x.|FORGE_INTEGRATION_BRANCHES",
		"acme/web#6":                         "The newest commit, 1313131, was not built: skipped: [skip ci]. Before it, forge/test passed.|The commit's message",
		"acme/web@" + sha40(2):               "forge/test passed.|",
		"acme/web#7":                         "forge/test failed: step 1 ended with exit code 1.|",
		"acme/web#8":                         "Nothing was built: action opened.|Forge does nothing for this action",
		"acme/web#99":                        "Nothing was built: GitHub has told Forge nothing of this pull request.|Forge hears of the newest commit of each push and of each pull request, and forgets it after a while. Is the address right? forge recover",
		"acme/web@" + sha40(77):              "Nothing was built: GitHub has told Forge nothing of this commit.|Forge hears",
		"dozing/web#1":                       "Nothing was built: dozing has suspended Forge's GitHub App.|An owner can take that back: https://github.com/settings/installations/2",
		"elsewhere/web#1":                    "Nothing was built: Forge's GitHub App is not installed on elsewhere.|Install it",
	} {
		answer, err := w.deliveries().ExplainAddress(admin(t.Context()), &gatewayv1.ExplainAddressRequest{Address: address})
		if err != nil {
			t.Fatal(address, err)
		}
		says, then, _ := strings.Cut(want, "|")
		if answer.GetAnswer() != says || !strings.HasPrefix(answer.GetAdvice(), then) || (then == "") != (answer.GetAdvice() == "") {
			t.Errorf("%s: %q, %q", address, answer.GetAnswer(), answer.GetAdvice())
		}
	}

	// What could not be decided is said as well.
	w.rooms.answers("scheduler", func(*eventv1.Event) (*eventv1.Decision, error) {
		return nil, fault.New(fault.Unavailable, "the scheduler is away")
	})
	w.post(hook{event: "pull_request", id: "d9", body: pullOf(9, 6, `"opened"`)})
	kittest.Eventually(t, patience, func() error {
		answer, err := w.deliveries().ExplainAddress(admin(t.Context()), &gatewayv1.ExplainAddressRequest{Address: "acme/web#9"})
		if err == nil && !strings.Contains(answer.GetAnswer(), "it has not been decided yet what to build, after one try: the scheduler is away.") {
			err = fmt.Errorf("it says %q", answer.GetAnswer())
		}
		return err
	})

	if _, err := w.deliveries().ExplainAddress(admin(t.Context()), &gatewayv1.ExplainAddressRequest{Address: "nonsense"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := w.deliveries().ExplainAddress(t.Context(), &gatewayv1.ExplainAddressRequest{Address: "acme/web#5"}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("without the admin token: %v", err)
	}
}
