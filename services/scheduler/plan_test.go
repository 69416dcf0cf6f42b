package scheduler

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// What config may answer instead of a .forge.yml.
var (
	absent  = &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}
	invalid = &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{
		Problems: []*configv1.ConfigInvalid_Problem{{Line: 7, Column: 3, Message: `unknown key "exceute", did you mean "execute"?`}},
	}}}
)

func pull(e *eventv1.Event) *eventv1.PullRequest { return e.GetPullRequest().GetPullRequest() }

// Each row sends an opened pull request into main, changed a little, and names
// what is decided and what is built.
func TestPullRequestEventsAreDecidedByTheTable(t *testing.T) {
	type change = func(*eventv1.Event, *fakeConfig, *Deps)
	base := func(name string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Base.Ref = name }
	}
	action := func(name string) change { return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { e.Action = name } }
	merge := func(name string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) {
			proto.Merge(e, mergedInto(1, name, "ccc"))
			pull(e).Open = false // which Merge leaves out
		}
	}
	answer := func(sha string, a *configv1.GetBuildConfigResponse) change {
		return func(_ *eventv1.Event, c *fakeConfig, _ *Deps) { c.set(sha, a) }
	}
	fork := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head.Repository.Id = 8 }
	policy := func(name string) change {
		return func(_ *eventv1.Event, _ *fakeConfig, d *Deps) { d.Policy.Forks = name }
	}
	edited := func(from string) change {
		return func(e *eventv1.Event, _ *fakeConfig, _ *Deps) {
			e.Action, e.GetPullRequest().PreviousBaseRef = "edited", from
		}
	}
	draft := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Draft = true }
	gone := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head.Repository = nil }
	bot := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) {
		e.Sender = &eventv1.Account{Login: "renovate[bot]", Type: eventv1.Account_TYPE_BOT}
		pull(e).Author, pull(e).MergedBy = e.GetSender(), e.GetSender()
	}
	closed := func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Open = false }
	branches := func(integration, production []string) change {
		return func(_ *eventv1.Event, _ *fakeConfig, d *Deps) {
			d.Policy.IntegrationBranches, d.Policy.ProductionBranches = integration, production
		}
	}
	bare := &configv1.BuildConfig{Image: "busybox", Execute: usual().GetExecute()}
	forbidden := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Forbidden{Forbidden: &configv1.ConfigForbidden{Message: "the App may not read contents"}}}

	rehearsed := usual()
	rehearsed.Staging = &configv1.Pipeline{Commands: []*configv1.Command{{Name: "rehearse", Run: "./rehearse"}}}
	unmatched := &configv1.GetBuildConfigResponse{Outcome: valid(usual()).GetOutcome(), NoMatchingPaths: true}

	const typo = `.forge.yml:7:3: unknown key "exceute", did you mean "execute"?`
	for _, c := range []struct {
		name     string
		changes  []change
		text     string
		context  string // of the build; empty for none
		sha      string
		state    schedulerv1.Build_State
		promoted bool
	}{
		{"opened", nil, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"reopened", []change{action("reopened")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"synchronize", []change{action("synchronize")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"edited with a new base", []change{edited("feature/x")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a draft", []change{draft}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"by a bot", []change{bot}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"into master where it is named", []change{base("master"), branches([]string{"main", "master"}, nil)}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},

		{"into production, no staging", []change{base("production")}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"into production", []change{base("production"), answer("aaa", valid(rehearsed))}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"reopened into production", []change{base("production"), action("reopened")}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"synchronize into production", []change{base("production"), action("synchronize")}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"edited into production", []change{base("production"), edited("main")}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a draft into production", []change{base("production"), draft}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"by a bot into production", []change{base("production"), bot}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"into live, which is production", []change{base("live"), branches([]string{"main"}, []string{"live"})}, "built", "forge/staging", "aaa", schedulerv1.Build_STATE_STARTING, false},

		{"merged into main", []change{merge("main")}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into main by a bot", []change{merge("main"), bot}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into main, fork gone", []change{merge("main"), gone}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into production", []change{merge("production")}, "built", "forge/deploy-production", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into production by a bot", []change{merge("production"), bot}, "built", "forge/deploy-production", "ccc", schedulerv1.Build_STATE_STARTING, false},
		{"merged into production, fork gone", []change{merge("production"), gone}, "built", "forge/deploy-production", "ccc", schedulerv1.Build_STATE_STARTING, false},

		{"labeled", []change{action("labeled")}, "ignored: action labeled", "", "", 0, false},
		{"labeled into production", []change{base("production"), action("labeled")}, "ignored: action labeled", "", "", 0, false},
		{"labeled after the merge", []change{merge("main"), action("labeled")}, "ignored: action labeled", "", "", 0, false},
		{"edited after the merge", []change{merge("production"), edited("main")}, "ignored: action edited", "", "", 0, false},
		{"ready for review", []change{action("ready_for_review")}, "ignored: action ready_for_review", "", "", 0, false},
		{"converted to draft", []change{draft, action("converted_to_draft")}, "ignored: action converted_to_draft", "", "", 0, false},
		{"added to the merge queue", []change{action("enqueued")}, "ignored: action enqueued", "", "", 0, false},
		{"edited title", []change{action("edited")}, "ignored: action edited", "", "", 0, false},
		{"new base while closed", []change{edited("dev"), closed}, "ignored: action edited", "", "", 0, false},
		{"into another branch", []change{base("feature/x")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"into a branch called almost so", []change{base("main2")}, "ignored: base branch is main2", "", "", 0, false},
		{"into a branch called so in capitals", []change{base("Main")}, "ignored: base branch is Main", "", "", 0, false},
		{"into master where it is not named", []change{base("master")}, "ignored: base branch is master", "", "", 0, false},
		{"edited into another branch", []change{base("feature/x"), edited("main")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"merged into another branch", []change{merge("feature/x")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"closed, nothing there", []change{action("closed")}, "ignored: closed without a merge, and nothing of it was queued or running", "", "", 0, false},
		{"merged without a commit", []change{merge("main"), func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).MergeCommitSha = "" }}, "malformed: merged without a merge commit", "", "", 0, false},
		{"without a head", []change{func(e *eventv1.Event, _ *fakeConfig, _ *Deps) { pull(e).Head = nil }}, "malformed: a pull_request event without a repository, a number or a head", "", "", 0, false},

		{"no .forge.yml", []change{answer("aaa", absent), answer("base", absent)}, "no .forge.yml at aaa", "", "", 0, false},
		{"merged, no .forge.yml", []change{merge("main"), answer("ccc", absent)}, "no .forge.yml at ccc", "", "", 0, false},
		{"invalid .forge.yml", []change{answer("aaa", invalid)}, typo, "forge/test", "aaa", schedulerv1.Build_STATE_ERRORED, false},
		{"merged, invalid .forge.yml", []change{merge("main"), answer("ccc", invalid)}, typo, "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_ERRORED, false},
		{"forbidden", []change{answer("aaa", forbidden)}, "the App may not read contents", "forge/test", "aaa", schedulerv1.Build_STATE_ERRORED, false},
		{
			"merged, nothing to deploy",
			[]change{merge("main"), answer("ccc", valid(bare))},
			"promoted: .forge.yml has no deploy to staging, so main goes on to production", "", "", 0, true,
		},
		{"merged into production, nothing to deploy", []change{merge("production"), answer("ccc", valid(bare))}, "ignored: nothing to run for deploy-production in .forge.yml", "", "", 0, false},
		{
			"nothing to deploy, no production",
			[]change{
				merge("main"), answer("ccc", valid(bare)),
				func(_ *eventv1.Event, _ *fakeConfig, d *Deps) { d.Policy.ProductionBranches = nil },
			},
			"ignored: nothing to run for deploy-staging in .forge.yml", "", "", 0, false,
		},
		{"no matching paths", []change{answer("aaa", unmatched)}, "ignored: no matching paths", "forge/test", "aaa", schedulerv1.Build_STATE_CANCELLED, false},
		{"a fork, no matching paths", []change{fork, answer("aaa", unmatched)}, "ignored: no matching paths", "forge/test", "aaa", schedulerv1.Build_STATE_CANCELLED, false},
		{"merged, no matching paths", []change{merge("main"), answer("ccc", unmatched)}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},

		{"a fork", []change{fork}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork into production", []change{fork, base("production")}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/staging", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork's draft", []change{fork, draft}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork by a bot", []change{fork, bot}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork into another branch", []change{fork, base("feature/x")}, "ignored: base branch is feature/x", "", "", 0, false},
		{"a fork that is gone", []change{gone}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork that is gone into production", []change{gone, base("production")}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/staging", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork that is gone, reopened", []change{gone, action("reopened")}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork that is gone, new base", []change{gone, edited("feature/x")}, "blocked: comes from a fork and needs approval: /forge approve aaa", "forge/test", "aaa", schedulerv1.Build_STATE_BLOCKED, false},
		{"a fork, policy run", []change{fork, policy("run")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a fork that is gone, policy run", []change{gone, policy("run")}, "built", "forge/test", "aaa", schedulerv1.Build_STATE_STARTING, false},
		{"a fork, policy never", []change{fork, policy("never")}, "ignored: pull requests from forks are not built here", "", "", 0, false},
		{"a fork that is gone, policy never", []change{gone, policy("never")}, "ignored: pull requests from forks are not built here", "", "", 0, false},
		{"a fork's merge", []change{merge("main"), fork, policy("never")}, "built", "forge/deploy-staging", "ccc", schedulerv1.Build_STATE_STARTING, false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			e := opened(1, "aaa")
			for _, change := range c.changes {
				change(e, r.config, &r.deps)
			}
			r.start()
			d := r.send(e)
			if d.GetText() != c.text {
				t.Errorf("decided %q, want %q", d.GetText(), c.text)
			}
			if again := r.send(e); !proto.Equal(again, d) {
				t.Errorf("decided again as %v, first %v", again, d)
			}
			again := r.again(e)
			if c.context == "" && again.GetText() != c.text {
				t.Errorf("in another delivery: %v", again)
			}
			if c.context != "" && (again.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(again.GetBuildIds(), d.GetBuildIds())) {
				t.Errorf("in another delivery: %v", again)
			}
			list, err := r.builds.ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if c.promoted {
				kittest.Eventually(t, patience, func() error {
					r.reporter.mu.Lock()
					defer r.reporter.mu.Unlock()
					if len(r.reporter.promotions) == 0 {
						return fault.New(fault.NotFound, "no promotion")
					}
					if p := r.reporter.promotions[0]; p.GetHead() != "main" || p.GetBase() != "production" || p.GetSha() != "ccc" {
						t.Errorf("promotion %v", p)
					}
					return nil
				})
			}
			if c.context == "" {
				if len(list.GetBuilds()) != 0 || len(d.GetBuildIds()) != 0 {
					t.Errorf("built %v", list.GetBuilds())
				}
				return
			}
			if len(list.GetBuilds()) != 1 || !slices.Equal(d.GetBuildIds(), []string{list.GetBuilds()[0].GetId()}) {
				t.Fatalf("built %v, decided %v", list.GetBuilds(), d)
			}
			b := r.becomes(d.GetBuildIds()[0], c.state)
			if b.GetContext() != c.context || b.GetSha() != c.sha || len(b.GetId()) != 26 || b.GetUrl() != "https://forge.example/builds/"+b.GetId() {
				t.Errorf("built %v", b)
			}
			if c.state == schedulerv1.Build_STATE_ERRORED {
				if shown := r.shown(c.sha, c.context, c.state); shown.GetMessage() != c.text || shown.GetAttempt() != 0 {
					t.Errorf("shown %v", shown)
				}
			}
		})
	}
}

func TestEventIsNotDecidedWhileItsConfigCannotBeRead(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.err = fault.New(fault.Unavailable, "GitHub is down")
		e := opened(1, "aaa")
		_, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("err = %v, want Unavailable", err)
		}
		r.config.mu.Lock()
		r.config.err = nil
		r.config.mu.Unlock()
		r.built(e)
	})
}

func TestSameContentIsBuiltOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var deliveries sync.WaitGroup
		decided := make([]*eventv1.Decision, 12)
		for n := range decided {
			deliveries.Go(func() {
				e := opened(1, "aaa")
				if n%2 == 1 {
					e.DeliveryId = strings.Repeat("x", n)
				}
				answer, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
				if err != nil {
					t.Error(err)
				}
				decided[n] = answer.GetDecision()
			})
		}
		deliveries.Wait()
		for _, d := range decided {
			if len(d.GetBuildIds()) != 1 || d.GetBuildIds()[0] != decided[0].GetBuildIds()[0] {
				t.Errorf("%v and %v", d, decided[0])
			}
		}
		if got := texts(decided...); len(got) != 2 {
			t.Errorf("decisions %q", got)
		}
		// The same commit in another pull request is other content.
		if id := r.built(opened(2, "aaa")); id == decided[0].GetBuildIds()[0] {
			t.Error("another pull request shares the build")
		}
	})
}

func TestPullRequestIntoProductionRunsStagingOrElseExecute(t *testing.T) {
	rehearsed := usual()
	rehearsed.Staging = &configv1.Pipeline{Commands: []*configv1.Command{{Name: "rehearse", Run: "./rehearse"}}}
	for _, c := range []struct {
		base   string
		config *configv1.BuildConfig
		first  string // step
	}{
		{"main", rehearsed, "vet"},
		{"production", rehearsed, "rehearse"},
		{"production", usual(), "vet"},
	} {
		r := sqliteRig(t)
		r.start()
		r.config.set("aaa", valid(c.config))
		e := opened(1, "aaa")
		pull(e).Base.Ref = c.base
		if steps := r.build(r.built(e)).GetSteps(); steps[0].GetName() != c.first {
			t.Errorf("into %s: %v, want %s first", c.base, steps, c.first)
		}
	}
}

// What is in none of the tables is stored and ignored.
func TestWhatBringsNothingIsIgnored(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	other := func(name, action string) *eventv1.Event {
		e := happened(name, action, nil)
		e.Payload = &eventv1.Event_Other{Other: &eventv1.OtherEvent{Json: []byte("{}")}}
		return e
	}
	for _, c := range []struct {
		event  *eventv1.Event
		reason eventv1.Reason
		text   string
	}{
		{other("star", "created"), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for star"},
		{other("issues", "opened"), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for issues"},
		{other("status", ""), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for status"},
		{other("create", ""), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for create"},
		{other("release", "published"), eventv1.Reason_REASON_MALFORMED, "malformed: a release without a repository or a tag"},
		{other("create", ""), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for create"},
		{other("pull_request_review", "submitted"), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for pull_request_review"},
		{other("pull_request_target", "opened"), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for pull_request_target"},
		{other("workflow_run", "completed"), eventv1.Reason_REASON_EVENT_IGNORED, "ignored: nothing is built for workflow_run"},
		{happened("check_run", "completed", &eventv1.CheckRunEvent{HeadSha: "aaa"}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action completed"},
		{happened("check_suite", "completed", &eventv1.CheckSuiteEvent{HeadSha: "aaa"}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action completed"},
		{happened("installation", "suspend", nil), eventv1.Reason_REASON_NOTED, "noted: config keeps the installations"},
	} {
		for range 2 { // in another delivery, too
			if d := r.again(c.event); d.GetReason() != c.reason || d.GetText() != c.text || len(d.GetBuildIds()) != 0 {
				t.Errorf("%s %s: %v, want %v %q", c.event.GetName(), c.event.GetAction(), d, c.reason, c.text)
			}
		}
	}
	if got := r.all(); len(got) != 0 {
		t.Errorf("built %v", got)
	}
}
