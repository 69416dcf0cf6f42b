package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Each row sends events of one pull request from a fork, in order; the last one
// counts.
func TestForksCommitRunsWhereItsPeopleHaveWriteAccess(t *testing.T) {
	sync := func(author, sender string) *eventv1.Event {
		return sentBy(sender, fromFork(author, synchronize("aaa", "bbb", noon.Add(time.Minute))))
	}
	reopen := func(author, sha string) *eventv1.Event {
		return sentBy(author, fromFork(author, reopened(sha, noon.Add(3*time.Minute))))
	}
	closing := closed("bbb", noon.Add(2*time.Minute))
	bot := fromFork("ada", opened(1, "aaa"))
	pull(bot).Author.Type = eventv1.Account_TYPE_BOT
	for name, c := range map[string]struct {
		events []*eventv1.Event
		by     string // who stands for it; "" where it is blocked
	}{
		"by a writer":                         {[]*eventv1.Event{fromFork("ada", opened(1, "aaa"))}, "ada"},
		"by an admin":                         {[]*eventv1.Event{fromFork("root", opened(1, "aaa"))}, "root"},
		"by a reader":                         {[]*eventv1.Event{fromFork("eve", opened(1, "aaa"))}, ""},
		"by a stranger":                       {[]*eventv1.Event{fromFork("mallory", opened(1, "aaa"))}, ""},
		"by a bot":                            {[]*eventv1.Event{bot}, ""},
		"by a reader, opened by a writer":     {[]*eventv1.Event{sentBy("ada", fromFork("eve", opened(1, "aaa")))}, ""},
		"pushed to by its author":             {[]*eventv1.Event{sync("ada", "ada")}, "ada"},
		"pushed to by another writer":         {[]*eventv1.Event{sync("ada", "root")}, "ada"},
		"a writer's, pushed to by a reader":   {[]*eventv1.Event{sync("ada", "eve")}, ""},
		"a reader's, pushed to by a writer":   {[]*eventv1.Event{sync("eve", "ada")}, ""},
		"reopened after a reader had pushed":  {[]*eventv1.Event{sync("ada", "eve"), closing, reopen("ada", "bbb")}, ""},
		"reopened as a writer had pushed it":  {[]*eventv1.Event{sync("ada", "ada"), closing, reopen("ada", "bbb")}, "ada"},
		"reopened, not heard of before":       {[]*eventv1.Event{reopen("ada", "bbb")}, "ada"},
		"reopened by a reader":                {[]*eventv1.Event{reopen("eve", "bbb")}, ""},
		"reopened with a commit not heard of": {[]*eventv1.Event{sync("ada", "eve"), closing, reopen("ada", "ccc")}, "ada"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			var d *eventv1.Decision
			for _, e := range c.events {
				d = r.send(e)
			}
			want := eventv1.Reason_REASON_BUILT
			if c.by == "" {
				want = eventv1.Reason_REASON_BLOCKED
			}
			if d.GetReason() != want || len(d.GetBuildIds()) != 1 {
				t.Fatalf("%v, want %v", d, want)
			}
			if b := r.build(d.GetBuildIds()[0]); b.GetApprovedBy() != c.by || !b.GetFork() {
				t.Errorf("%v", b)
			}
		})
	}
}

func TestNobodyIsAskedForBuildsOfTheRepositoryItself(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	e := opened(1, "aaa")
	pull(e).Author = &eventv1.Account{Login: "renovate[bot]", Type: eventv1.Account_TYPE_BOT}
	r.built(sentBy("renovate[bot]", e))
	r.github.set(func(g *fakeGitHub) {
		if len(g.asked) > 0 {
			t.Errorf("asked for %v", g.asked)
		}
	})
}

func TestApprovalIsOfOneCommit(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const first, second = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4", "77aa91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
		blocked := r.send(r.github.shows(fromFork("eve", opened(1, first)))).GetBuildIds()[0]
		if b := r.shown(first, "forge/test", schedulerv1.Build_STATE_BLOCKED); b.GetReason() != schedulerv1.Build_REASON_NEEDS_APPROVAL {
			t.Errorf("%v", b)
		}
		if d := r.send(commentBy("ada", "looks good\n/forge approve 3F2A91C0D5B6")); d.GetReason() != eventv1.Reason_REASON_APPROVED ||
			d.GetText() != "approved: 3f2a91c by ada" || !slices.Equal(d.GetBuildIds(), []string{blocked}) {
			t.Errorf("%v", d)
		}
		if spec := r.spec(blocked, 1); !spec.Fork {
			t.Error("the engine is not told that it runs a fork's commands")
		}
		r.pass(blocked)
		if b := r.build(blocked); b.GetApprovedBy() != "ada" {
			t.Errorf("%v", b)
		}
		if d := r.send(commentBy("root", "/forge approve "+first)); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || d.GetText() != "ignored: 3f2a91c was let run already by ada" {
			t.Errorf("%v", d)
		}
		// It may run again, and into another branch.
		again := commentBy("ada", "once more\n/forge retest")
		r.pass(r.built(again))
		// What is pushed next waits again.
		next := fromFork("eve", synchronize(first, second, noon.Add(time.Minute)))
		if d := r.send(sentBy("eve", r.github.shows(next))); d.GetReason() != eventv1.Reason_REASON_BLOCKED {
			t.Errorf("%v", d)
		}
	})
}

func TestApprovalMayArriveBeforeThePush(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	e := r.github.shows(fromFork("eve", opened(1, "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4")))
	if d := r.send(commentBy("ada", "/forge approve 3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4")); d.GetReason() != eventv1.Reason_REASON_APPROVED || len(d.GetBuildIds()) != 0 {
		t.Errorf("%v", d)
	}
	if b := r.build(r.built(e)); b.GetApprovedBy() != "ada" {
		t.Errorf("%v", b)
	}
}

func TestRetestApprovesNothing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		e := r.github.shows(sentBy("eve", fromFork("ada", synchronize("aaa", "bbb", noon))))
		blocked := r.send(e).GetBuildIds()[0]
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: blocked}); err != nil {
			t.Fatal(err)
		}
		for _, ask := range []func() string{
			func() string { return r.send(commentBy("ada", "/forge retest")).GetBuildIds()[0] },
			func() string {
				answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: blocked})
				if err != nil {
					t.Fatal(err)
				}
				return answer.GetBuild().GetId()
			},
			func() string {
				return r.send(pressedAt("bbb", r.all()[0].GetId(), "")).GetBuildIds()[0]
			},
			func() string {
				return r.send(happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{HeadSha: "bbb"})).GetBuildIds()[0]
			},
			func() string {
				edited := r.github.shows(fromFork("ada", opened(1, "bbb")))
				edited.Action, edited.GetPullRequest().PreviousBaseRef = "edited", "main"
				pull(edited).Base.Ref, pull(edited).UpdateTime = "production", timestamppb.New(noon.Add(time.Minute))
				return r.send(edited).GetBuildIds()[0]
			},
		} {
			id := ask()
			if b := r.build(id); id == blocked || b.GetState() != schedulerv1.Build_STATE_BLOCKED || !b.GetFork() {
				t.Errorf("%v", b)
			}
			if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestRetestOfAForksUnknownCommitIsBlocked(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	r.github.shows(fromFork("ada", opened(1, "aaa")))
	if d := r.send(commentBy("ada", "/forge retest")); d.GetReason() != eventv1.Reason_REASON_BLOCKED {
		t.Errorf("nobody knows who pushed it: %v", d)
	}
}

func TestAdministratorApproves(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		blocked := r.send(fromFork("eve", opened(1, "aaa"))).GetBuildIds()[0]
		answer, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: blocked})
		if err != nil || answer.GetBuild().GetApprovedBy() != administrator {
			t.Errorf("%v, %v", answer, err)
		}
		r.pass(blocked)
		for id, want := range map[string]codes.Code{blocked: codes.FailedPrecondition, "nope": codes.NotFound} {
			if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id}); status.Code(err) != want {
				t.Errorf("approve %s: %v, want %v", id, err, want)
			}
		}
	})
}

func TestForksBuildHoldsNeitherSecretsNorPorts(t *testing.T) {
	rich := usual()
	rich.Secrets, rich.Ports = []string{"REGISTRY_TOKEN"}, []*configv1.Port{{Container: 80, Host: 8080}}
	for name, c := range map[string]struct {
		event *eventv1.Event
		kept  bool
	}{
		"a fork's":          {fromFork("eve", opened(1, "aaa")), false},
		"a writer's fork's": {fromFork("ada", opened(1, "aaa")), false},
		"a fork's that is gone": {func() *eventv1.Event {
			e := opened(1, "aaa")
			pull(e).Head.Repository = nil
			return e
		}(), false},
		"the repository's":      {opened(1, "aaa"), true},
		"a fork's, once merged": {fromFork("eve", mergedInto(1, "main", "aaa")), true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("aaa", valid(rich))
			id := r.send(c.event).GetBuildIds()[0]
			b, err := store.ReadBuild(t.Context(), r.service.store.DB.Read(), id, "")
			if err != nil {
				t.Fatal(err)
			}
			if kept := len(b.Config.GetSecrets()) == 1 && len(b.Config.GetPorts()) == 1; kept != c.kept || b.GetFork() == c.kept {
				t.Errorf("secrets %v, ports %v, fork %v", b.Config.GetSecrets(), b.Config.GetPorts(), b.GetFork())
			}
		})
	}
}
