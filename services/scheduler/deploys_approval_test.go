package scheduler

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// blocked sends an event whose deploy must wait for somebody.
func sendBlocked(r *rig, e *eventv1.Event) *schedulerv1.Build {
	r.t.Helper()
	d := r.send(e)
	if d.GetReason() != eventv1.Reason_REASON_BLOCKED || !strings.HasPrefix(d.GetText(), "blocked: needs approval") {
		r.t.Fatalf("%s: %v, want it blocked", e.GetDeliveryId(), d)
	}
	b := r.build(d.GetBuildIds()[0])
	if b.GetState() != schedulerv1.Build_STATE_BLOCKED || b.GetReason() != schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL || b.GetEnvironment() == "" {
		r.t.Fatalf("%v, want it blocked", b)
	}
	return b
}

func approve(r *rig, id, by string) (*schedulerv1.Build, error) {
	answer, err := r.builds.ApproveBuild(r.t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id, By: by})
	return answer.GetBuild(), err
}

// showMerged has GitHub show pull request 1 as merged into main, and returns that event.
func showMerged(r *rig, sha string) *eventv1.Event {
	return r.github.shows(mergedInto(1, "main", sha))
}

// Each row is somebody who lets a deploy go, by each way there is, or tries to.
func TestWhoLetsADeployGo(t *testing.T) {
	lost := func(g *fakeGitHub) { g.may["ada"] = configv1.GetPermissionResponse_PERMISSION_READ }
	gone := func(g *fakeGitHub) { delete(g.may, "ada") }
	ops := func(members ...string) func(*fakeGitHub) {
		return func(g *fakeGitHub) { g.teams = map[string][]string{"acme/ops": members} }
	}
	unread := "; the App may not read the teams of acme"
	for name, c := range map[string]struct {
		approvers []string
		by        string
		before    func(*fakeGitHub)
		refused   string
	}{
		"who may write":                    {by: "ada"},
		"an administrator of it":           {by: "root"},
		"who may read":                     {by: "eve", refused: "eve has no write access to Acme/shop"},
		"a stranger":                       {by: "mallory", refused: "mallory has no write access to Acme/shop"},
		"who is named":                     {approvers: []string{"ada"}, by: "ada"},
		"one of several":                   {approvers: []string{"bob", "ada"}, by: "ada"},
		"who may write, and another is":    {approvers: []string{"bob", "carol"}, by: "ada", refused: "ada is not among those who let deploys to production go: bob, carol"},
		"an administrator, and another is": {approvers: []string{"bob"}, by: "root", refused: "root is not among those who let deploys to production go: bob"},
		"named, may read":                  {approvers: []string{"eve"}, by: "eve", refused: "eve has no write access to Acme/shop"},
		"named, a stranger":                {approvers: []string{"mallory"}, by: "mallory", refused: "mallory has no write access to Acme/shop"},
		"named, lost his rights":           {approvers: []string{"ada"}, by: "ada", before: lost, refused: "ada has no write access to Acme/shop"},
		"named, gone":                      {approvers: []string{"ada"}, by: "ada", before: gone, refused: "ada has no write access to Acme/shop"},
		"in a team":                        {approvers: []string{"bob", "acme/none", "acme/ops"}, by: "ada", before: ops("carol", "ada")},
		"in no team":                       {approvers: []string{"bob", "acme/ops"}, by: "ada", before: ops("carol"), refused: "ada is not among those who let deploys to production go: bob, acme/ops"},
		"in a team, may read":              {approvers: []string{"acme/ops"}, by: "eve", before: ops("eve"), refused: "eve has no write access to Acme/shop"},
		"of a team that is not read":       {approvers: []string{"acme/ops"}, by: "ada", refused: "ada is not among those who let deploys to production go: acme/ops" + unread},
		"named beside such a team":         {approvers: []string{"acme/ops", "ada"}, by: "ada"},
		"lost his rights":                  {by: "ada", before: lost, refused: "ada has no write access to Acme/shop"},
	} {
		for way, ask := range map[string]func(*rig, *schedulerv1.Build) string{
			"button": func(r *rig, b *schedulerv1.Build) string {
				return r.send(sentBy(c.by, pressedAt(b.GetSha(), b.GetId(), "approve"))).GetText()
			},
			"comment": func(r *rig, _ *schedulerv1.Build) string {
				return r.send(commentBy(c.by, "/forge deploy production")).GetText()
			},
			"call": func(r *rig, b *schedulerv1.Build) string {
				_, err := approve(r, b.GetId(), c.by)
				if want := map[bool]codes.Code{true: codes.PermissionDenied}[c.refused != ""]; status.Code(err) != want {
					r.t.Errorf("%v, want %v", err, want)
				}
				return status.Convert(err).Message()
			},
			"page": func(r *rig, b *schedulerv1.Build) string {
				_, err := r.people.ApproveBuild(rpc.For(r.t.Context(), c.by), &schedulerv1.ApproveBuildRequest{BuildId: b.GetId()})
				return status.Convert(err).Message()
			},
		} {
			t.Run(strings.ReplaceAll(name+" by "+way, " ", "_"), func(t *testing.T) {
				r := sqliteRig(t)
				r.start()
				says(r, fileOf(to("production", approvedBy(at("main"), c.approvers...))), "p1", "m1")
				r.github.set(func(g *fakeGitHub) { g.may["bob"] = configv1.GetPermissionResponse_PERMISSION_WRITE })
				showMerged(r, "p1")
				b := sendBlocked(r, pushedTo("refs/heads/main", "p1"))
				if !strings.HasPrefix(b.GetMessage(), strings.TrimSpace("needs approval "+map[bool]string{true: "by " + strings.Join(c.approvers, " or ")}[len(c.approvers) > 0])) {
					t.Errorf("it says %q", b.GetMessage())
				}
				if c.before != nil {
					r.github.set(c.before)
				}
				said := ask(r, b)
				b = r.build(b.GetId())
				if c.refused != "" {
					if !strings.HasSuffix(said, c.refused) || b.GetState() != schedulerv1.Build_STATE_BLOCKED || b.GetApprovedBy() != "" {
						t.Errorf("%q, %v", said, b)
					}
					return
				}
				if b.GetApprovedBy() != c.by || b.GetApproveTime().AsTime() != r.clock.Now().UTC() {
					t.Errorf("%q, %v", said, b)
				}
				r.pass(b.GetId())
			})
		}
	}
}

// Who has signed in acts in their own name, whatever the request says.
func TestWhoHasSignedInActsInTheirOwnName(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	says(r, fileOf(to("production", approvedBy(at("main"), "root"))), "p1", "m1")
	showMerged(r, "p1")
	b := sendBlocked(r, pushedTo("refs/heads/main", "p1"))
	for by, want := range map[string]string{"root": "lets a deploy go in no other name", "": "ada is not among those who let deploys to production go: root"} {
		_, err := r.people.ApproveBuild(rpc.For(t.Context(), "ada"), &schedulerv1.ApproveBuildRequest{BuildId: b.GetId(), By: by})
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), want) {
			t.Errorf("ada by %q: %v", by, err)
		}
	}
	answer, err := r.people.CancelBuild(rpc.For(t.Context(), "ada"), &schedulerv1.CancelBuildRequest{BuildId: b.GetId()})
	if err != nil || answer.GetBuild().GetMessage() != "cancelled by ada" {
		t.Errorf("%v, %v", answer, err)
	}
	again, err := r.people.RetryBuild(rpc.For(t.Context(), "ada"), &schedulerv1.RetryBuildRequest{BuildId: b.GetId()})
	if err != nil || again.GetBuild().GetActor() != "ada" || again.GetBuild().GetState() != schedulerv1.Build_STATE_BLOCKED {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := r.people.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: b.GetId()}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("for nobody: %v", err)
	}
}

func TestBlockedDeployIsToldAndLetGo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		c := usual()
		c.Environments = []*configv1.Destination{to("production", approvedBy(after("staging"), "ada"))}
		says(r, valid(c), "m1", "m2")
		r.pass(r.built(showMerged(r, "m1")))
		b := newestTo(r, "production", "m1")
		if b.GetMessage() != "needs approval by ada: /forge deploy production" || b.GetApprovers()[0] != "ada" || !b.GetNeedsApproval() {
			t.Errorf("%v", b)
		}
		told := r.shown("m1", "forge/deploy-production", schedulerv1.Build_STATE_BLOCKED)
		if told.GetReason() != schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL {
			t.Errorf("told %v", told)
		}
		e, err := r.places.GetEnvironment(t.Context(), &schedulerv1.GetEnvironmentRequest{Repository: "acme/shop", Environment: "production"})
		if err != nil || len(e.GetEnvironment().GetWaiting()) != 1 || e.GetEnvironment().GetDeploying() != nil {
			t.Errorf("%v, %v", e, err)
		}
		if _, err := r.places.FreezeEnvironment(t.Context(), &schedulerv1.FreezeEnvironmentRequest{Repository: "acme/shop", Environment: "production", Message: "fair"}); err != nil {
			t.Fatal(err)
		}
		b, err = approve(r, b.GetId(), "")
		if err != nil || b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetMessage() != "production is frozen: fair" || b.GetApprovedBy() != administrator {
			t.Errorf("%v, %v", b, err)
		}
		if _, err := approve(r, b.GetId(), ""); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "was let go already by "+administrator) {
			t.Errorf("approved twice: %v", err)
		}
		if _, err := r.places.UnfreezeEnvironment(t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: "acme/shop", Environment: "production"}); err != nil {
			t.Fatal(err)
		}
		r.fail(b.GetId(), 1, 1)
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: b.GetId()})
		if err != nil || again.GetBuild().GetApprovedBy() != administrator || again.GetBuild().GetState() == schedulerv1.Build_STATE_BLOCKED {
			t.Fatalf("the same commit once more: %v, %v", again, err)
		}
		r.pass(again.GetBuild().GetId())
	})
}

func TestApprovedDeploySupersedesThoseThatWaitSinceBefore(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("c1", "c2", "c3")
		says(r, fileOf(to("production", approvedBy(at("v*")))), "c1", "c2", "c3")
		first, second := sendBlocked(r, pushedTo("refs/tags/v1", "c1")), sendBlocked(r, pushedTo("refs/tags/v2", "c2"))
		third := sendBlocked(r, pushedTo("refs/tags/v3", "c3"))
		if _, err := approve(r, second.GetId(), ""); err != nil {
			t.Fatal(err)
		}
		b := r.build(first.GetId())
		if b.GetState() != schedulerv1.Build_STATE_CANCELLED || b.GetReason() != schedulerv1.Build_REASON_SUPERSEDED || b.GetSupersededBy() != second.GetId() {
			t.Errorf("the older: %v", b)
		}
		if b := r.build(third.GetId()); b.GetState() != schedulerv1.Build_STATE_BLOCKED {
			t.Errorf("the newer: %v", b)
		}
		says := "build " + first.GetId() + " was superseded by build " + second.GetId()
		if _, err := approve(r, first.GetId(), ""); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != says {
			t.Errorf("approved a second too late: %v", err)
		}
		if d := r.send(pressedAt("c1", first.GetId(), "approve")); d.GetText() != "ignored: "+says {
			t.Errorf("pressed a second too late: %v", d)
		}
		r.pass(second.GetId())
		if _, err := approve(r, third.GetId(), ""); err != nil {
			t.Fatal(err)
		}
		r.pass(third.GetId())
	})
}

// What waits is of its own commit's file, whatever later files say.
func TestDeploysWaitOnWhereTheirEnvironmentIsRenamed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, fileOf(to("live", approvedBy(at("main")))), "c1")
		old := sendBlocked(r, pushedTo("refs/heads/main", "c1"))
		says(r, fileOf(to("prod", approvedBy(at("main")))), "c2")
		renamed := sendBlocked(r, pushedTo("refs/heads/main", "c2"))
		if renamed.GetEnvironment() != "prod" || r.build(old.GetId()).GetState() != schedulerv1.Build_STATE_BLOCKED {
			t.Errorf("%v", renamed)
		}
		if _, err := approve(r, renamed.GetId(), ""); err != nil {
			t.Fatal(err)
		}
		r.pass(renamed.GetId())
		answer, err := r.places.GetEnvironment(t.Context(), &schedulerv1.GetEnvironmentRequest{Repository: "Acme/shop", Environment: "live"})
		if err != nil || answer.GetEnvironment().GetWaiting()[0].GetId() != old.GetId() {
			t.Errorf("%v, %v", answer, err)
		}
		if _, err := approve(r, old.GetId(), ""); err != nil {
			t.Errorf("it can be let go: %v", err)
		}
		r.pass(old.GetId())
		says(r, fileOf(), "c3")
		if d := r.send(pushedTo("refs/heads/main", "c3")); len(d.GetBuildIds()) != 0 {
			t.Errorf("removed, and deployed: %v", d)
		}
	})
}

// Nobody lets go by a pull request what its own file says.
func TestNoPullRequestChangesWhoLetsADeployGo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("main", fileOf(to("production", approvedBy(at("main"), "root"))))
		mine := fileOf(to("production", at("**")), to("evil", at("**")), to("chained", after("evil")))
		for _, sha := range []string{"head", "fork"} {
			r.config.set(sha, mine)
		}
		own, fork := opened(1, "head"), fromFork("eve", opened(2, "fork"))
		for _, e := range []*eventv1.Event{own, r.github.shows(fork)} {
			for _, id := range r.send(e).GetBuildIds() {
				if b := r.build(id); b.GetEnvironment() != "" {
					t.Errorf("%v", b)
				}
			}
		}
		// Whoever pushes it to a branch gets no further than the default branch's file lets him.
		push := r.send(pushedTo("refs/heads/till", "head"))
		for _, id := range push.GetBuildIds() {
			if b := r.build(id); b.GetEnvironment() != "" {
				t.Errorf("%v", b)
			}
		}
		// Where it may push, who lets it go stays who it was.
		r.config.set("main", fileOf(to("production", approvedBy(at("main", "release"), "root"))))
		r.config.set("late", fileOf(to("production", at("**"))))
		b := sendBlocked(r, pushedTo("refs/heads/release", "late"))
		if _, err := approve(r, b.GetId(), "ada"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%v", err)
		}
		if _, err := approve(r, b.GetId(), "root"); err != nil {
			t.Error(err)
		}
	})
}

// A comment says what it is for, and which pull request was merged as what waits.
func TestCommentsLetGoWhatWasMerged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, fileOf(to("production", approvedBy(at("main"))), to("canary", approvedBy(after("production")))), "p1", "p2")
		comment := func(body string) *eventv1.Decision {
			e := commentBy("ada", body)
			e.GetIssueComment().CreateTime = timestamppb.New(r.clock.Now())
			return r.send(e)
		}
		r.github.shows(opened(1, "aaa"))
		if d := comment("/forge deploy production"); !strings.Contains(d.GetText(), "#1 is not merged") {
			t.Errorf("%v", d)
		}
		showMerged(r, "p1")
		if d := comment("/forge deploy production\n"); !strings.Contains(d.GetText(), "nothing of #1 waits to be deployed to production") {
			t.Errorf("%v", d)
		}
		b := sendBlocked(r, pushedTo("refs/heads/main", "p1"))
		for _, bad := range []string{"/forge deploy", "/forge deploy Pro/duction"} {
			if d := comment(bad); !strings.Contains(d.GetText(), "name what is deployed to") {
				t.Errorf("%s: %v", bad, d)
			}
		}
		if d := comment("/forge deploy canary"); !strings.Contains(d.GetText(), "nothing of #1 waits to be deployed to canary") {
			t.Errorf("%v", d)
		}
		if d := comment("/forge deploy PRODUCTION"); d.GetReason() != eventv1.Reason_REASON_APPROVED || d.GetText() != "approved: p1 goes to production, by ada" {
			t.Errorf("%v", d)
		}
		r.pass(b.GetId())
		if d := comment("/forge deploy production again"); d.GetReason() == eventv1.Reason_REASON_APPROVED {
			t.Errorf("%v", d)
		}
		if d := comment("/forge deploy canary\n\n"); d.GetReason() != eventv1.Reason_REASON_APPROVED {
			t.Errorf("%v", d)
		}
		r.pass(newestTo(r, "canary", "p1").GetId())
	})
}
