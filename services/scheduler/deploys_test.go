package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func script(line string) *configv1.Pipeline {
	return &configv1.Pipeline{Commands: []*configv1.Command{{Name: line, Run: line}}}
}

// to is an environment that some pushes deploy to.
func to(name string, change func(*configv1.Destination)) *configv1.Destination {
	e := &configv1.Destination{Name: name}
	if name != "staging" && name != "production" {
		e.Execute = script("./deploy " + name)
	}
	change(e)
	return e
}

// at are branches, or tags where a pattern begins with v.
func at(patterns ...string) func(*configv1.Destination) {
	return func(e *configv1.Destination) {
		for _, pattern := range patterns {
			if strings.HasPrefix(pattern, "v") {
				e.Tags = append(e.Tags, pattern)
			} else {
				e.Branches = append(e.Branches, pattern)
			}
		}
	}
}

func after(name string, changes ...func(*configv1.Destination)) func(*configv1.Destination) {
	return func(e *configv1.Destination) {
		e.After = name
		for _, change := range changes {
			change(e)
		}
	}
}

// approvedBy asks for an approval, of these people alone where there are any.
func approvedBy(change func(*configv1.Destination), logins ...string) func(*configv1.Destination) {
	return func(e *configv1.Destination) {
		change(e)
		e.Approval, e.Approvers = true, logins
	}
}

func fileOf(all ...*configv1.Destination) *configv1.GetBuildConfigResponse {
	c := usual()
	c.Environments = all
	return valid(c)
}

// says has the default branch, and these commits, have a file.
func says(r *rig, answer *configv1.GetBuildConfigResponse, shas ...string) {
	for _, sha := range append(shas, "main") {
		r.config.set(sha, answer)
	}
}

// newest is the newest build of a commit for an environment.
func newestTo(r *rig, environment, sha string) *schedulerv1.Build {
	for _, b := range r.all() {
		if b.GetEnvironment() == environment && b.GetSha() == sha {
			return b
		}
	}
	return nil
}

// Each row is a push, and what it deploys to; or why to nothing.
func TestPushesDeployAsForgeYmlNamesThem(t *testing.T) {
	named := []*configv1.Destination{to("canary", at("main", "release/*")), to("eu-west", at("v*")), to("production", at("v[1-9]*"))}
	deleted := pushedTo("refs/tags/v1.2", "aaa")
	deleted.GetPush().Deleted = true
	skipped := pushedTo("refs/heads/main", "aaa")
	skipped.GetPush().HeadMessage = "Mend [skip ci]"
	skippedTag := pushedTo("refs/tags/v1", "aaa")
	skippedTag.GetPush().HeadMessage = "Mend [skip ci]"
	const none = "ignored: nothing to run for push in .forge.yml, and no environment of deploy names what was pushed"
	for name, c := range map[string]struct {
		event    *eventv1.Event
		standard *configv1.GetBuildConfigResponse // the default branch's file; nil: the same
		to, text string
	}{
		"branch":                     {event: pushedTo("refs/heads/main", "aaa"), to: "canary", text: "built"},
		"glob":                       {event: pushedTo("refs/heads/release/1", "aaa"), to: "canary", text: "built"},
		"star and slash":             {event: pushedTo("refs/heads/release/1/2", "aaa"), text: none},
		"name that goes on":          {event: pushedTo("refs/heads/main2", "aaa"), text: none},
		"branch in capitals":         {event: pushedTo("refs/heads/Main", "aaa"), text: none},
		"other branch":               {event: pushedTo("refs/heads/staging", "aaa"), text: none},
		"the environment's name":     {event: pushedTo("refs/heads/canary", "aaa"), text: none},
		"production branch":          {event: pushedTo("refs/heads/production", "aaa"), text: none},
		"branch like a tag":          {event: pushedTo("refs/heads/v1", "aaa"), text: none},
		"tag like a branch":          {event: pushedTo("refs/tags/main", "aaa"), text: none},
		"tag of two environments":    {event: pushedTo("refs/tags/v1.2", "aaa"), to: "eu-west production", text: "built"},
		"tag of one":                 {event: pushedTo("refs/tags/v0.2", "aaa"), to: "eu-west", text: "built"},
		"tag deleted":                {event: deleted, text: "ignored: refs/tags/v1.2 was deleted"},
		"merge queue":                {event: pushedTo("refs/heads/gh-readonly-queue/main/pr-1", "aaa"), text: "ignored: the merge queue's own branches are built as merge groups"},
		"asks for nothing":           {event: skipped, text: "ignored: the commit's message says [skip ci]"},
		"tag of what asks for it":    {event: skippedTag, to: "eu-west production", text: "built"},
		"merged into staging":        {event: mergedInto(1, "main", "aaa"), to: "staging", text: "built"},
		"merged into production":     {event: mergedInto(1, "production", "aaa"), text: "ignored: deploy.production in .forge.yml names what deploys there, which merges do not"},
		"opened":                     {event: opened(1, "aaa"), text: "built"},
		"opened into production":     {event: func() *eventv1.Event { e := opened(1, "aaa"); pull(e).Base.Ref = "production"; return e }(), text: "built"},
		"not on the default branch":  {event: pushedTo("refs/heads/release/1", "aaa"), standard: fileOf(to("canary", at("main"))), text: "ignored: deploy.canary in .forge.yml of main does not name release/1"},
		"new to the default branch":  {event: pushedTo("refs/heads/release/1", "aaa"), standard: fileOf(), text: "ignored: .forge.yml of main has no environment canary, or errors"},
		"by merges there":            {event: pushedTo("refs/tags/v1", "aaa"), standard: fileOf(to("eu-west", at("v*"))), to: "eu-west", text: "built"},
		"after another there":        {event: pushedTo("refs/tags/v0.1", "aaa"), standard: fileOf(to("canary", at("main")), to("eu-west", after("canary"))), text: none},
		"a default branch that errs": {event: pushedTo("refs/tags/v0.1", "aaa"), standard: invalid, text: "ignored: .forge.yml of main has no environment eu-west, or errors"},
		"a default branch without":   {event: pushedTo("refs/tags/v0.1", "aaa"), standard: absent, text: "ignored: .forge.yml of main has no environment eu-west, or errors"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			says(r, fileOf(named...), "aaa")
			if c.standard != nil {
				r.config.set("main", c.standard)
			}
			c.event.DeliveryId = "one"
			d := r.send(c.event)
			var went []string
			for _, id := range d.GetBuildIds() {
				if b := r.build(id); b.GetEnvironment() != "" && b.GetState() != schedulerv1.Build_STATE_CANCELLED {
					went = append(went, b.GetEnvironment())
					if want := "forge/deploy-" + b.GetEnvironment(); b.GetContext() != want {
						t.Errorf("told as %s, want %s", b.GetContext(), want)
					}
				}
			}
			if d.GetText() != c.text || strings.Join(went, " ") != c.to {
				t.Errorf("%q, deployed to %q", d.GetText(), went)
			}
			again := r.send(c.event)
			if len(again.GetBuildIds()) != len(d.GetBuildIds()) {
				t.Errorf("told again: %v", again)
			}
			other := c.event
			other.DeliveryId = "two"
			before := len(r.all())
			if r.send(other); c.event != skipped && len(r.all()) != before {
				t.Error("another delivery of the same built something more")
			}
		})
	}
}

func TestThirdEnvironmentHasOrderFreezeAndRollBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		r.history("c1", "c2", "c3", "c4")
		file := fileOf(to("canary", at("main")))
		says(r, file, "c1", "c2", "c3", "c4")
		call := func() *schedulerv1.Environment {
			answer, err := r.places.GetEnvironment(ctx, &schedulerv1.GetEnvironmentRequest{Repository: "acme/shop", Environment: "canary"})
			if err != nil {
				t.Fatal(err)
			}
			return answer.GetEnvironment()
		}
		first := r.built(pushedTo("refs/heads/main", "c1"))
		u := r.attach(r.spec(first, 1).Runner.Token)
		if name := u.plan.GetEnvironment()["FORGE_ACTION"]; name != "deploy-canary" {
			t.Errorf("FORGE_ACTION is %q", name)
		}
		third, second := r.built(pushedTo("refs/heads/main", "c3")), r.built(pushedTo("refs/heads/main", "c2"))
		staging := r.built(mergedInto(1, "main", "c1"))
		if e := call(); e.GetDeploying().GetId() != first || len(e.GetWaiting()) != 2 || e.GetWaiting()[0].GetId() != third {
			t.Errorf("%v", e)
		}
		r.pass(staging) // which canary does not hold up
		u.send(passing(1)...)
		r.pass(third)
		if b := r.becomes(second, schedulerv1.Build_STATE_CANCELLED); b.GetMessage() != "already contained in build "+third {
			t.Errorf("%v", b)
		}
		if _, err := r.places.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "canary", Message: "c3 is bad"}); err != nil {
			t.Fatal(err)
		}
		waiting := r.built(pushedTo("refs/heads/main", "c4"))
		if b := r.build(waiting); b.GetMessage() != "canary is frozen: c3 is bad" {
			t.Errorf("%v", b)
		}
		back, err := r.places.RollBackEnvironment(ctx, &schedulerv1.RollBackEnvironmentRequest{Repository: "Acme/shop", Environment: "canary", BuildId: first})
		if err != nil || back.GetBuild().GetSha() != "c1" || back.GetBuild().GetEnvironment() != "canary" || back.GetBuild().GetContext() != "forge/deploy-canary" {
			t.Fatalf("%v, %v", back, err)
		}
		r.pass(back.GetBuild().GetId())
		late := pushedTo("refs/heads/main", "c2")
		late.DeliveryId = "late"
		if d := r.send(late); d.GetText() != "already contained in build "+third {
			t.Errorf("a late push undoes the roll back: %v", d)
		}
		if _, err := r.places.UnfreezeEnvironment(ctx, &schedulerv1.UnfreezeEnvironmentRequest{Repository: "Acme/shop", Environment: "canary"}); err != nil {
			t.Fatal(err)
		}
		r.pass(waiting)
		kittest.Eventually(t, patience, func() error {
			if e := call(); e.GetDeployed().GetId() != waiting || e.GetDeploying() != nil {
				return fmt.Errorf("%v", e)
			}
			return nil
		})
		if _, err := r.places.RollBackEnvironment(ctx, &schedulerv1.RollBackEnvironmentRequest{Repository: "Acme/shop", Environment: "canary", BuildId: staging}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("back to a deploy of staging: %v", err)
		}
	})
}

func TestDeploysFollowEachOther(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.history("c1", "c2")
		says(r, fileOf(to("canary", at("main")), to("live", after("canary")), to("edge", after("live")), to("fast", after("canary", at("v*")))), "c1", "c2")
		canary := r.built(pushedTo("refs/heads/main", "c1"))
		fast := r.built(pushedTo("refs/tags/v1", "c1"))
		if b := r.build(fast); b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetReason() != schedulerv1.Build_REASON_DEPLOYS_AFTER || b.GetMessage() != "c1 is not deployed to canary yet" {
			t.Errorf("%v", b)
		}
		if b := newestTo(r, "live", "c1"); b != nil {
			t.Errorf("live began before canary was there: %v", b)
		}
		r.pass(canary)
		r.pass(fast)
		live := newestTo(r, "live", "c1").GetId()
		r.pass(live)
		r.pass(newestTo(r, "edge", "c1").GetId())

		second := r.built(pushedTo("refs/heads/main", "c2"))
		r.fail(second, 1, 1)
		r.becomes(second, schedulerv1.Build_STATE_FAILED)
		if b := newestTo(r, "live", "c2"); b != nil {
			t.Errorf("live follows what failed: %v", b)
		}
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: second})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(again.GetBuild().GetId())
		r.pass(newestTo(r, "live", "c2").GetId())
		all := len(r.all())
		back, err := r.places.RollBackEnvironment(t.Context(), &schedulerv1.RollBackEnvironmentRequest{Repository: "Acme/shop", Environment: "canary", BuildId: canary})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(back.GetBuild().GetId())
		if len(r.all()) != all+1 {
			t.Error("another environment follows a roll back")
		}
		if b := r.build(live); b.GetAfter() != "canary" || b.GetActor() != "ada" {
			t.Errorf("%v", b)
		}
	})
}

// A merge goes on from staging, with its jobs.
func TestProductionFollowsTheMergeIntoStaging(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		c := usual()
		c.DeployProduction = &configv1.Pipeline{Jobs: []*configv1.Job{job("migrate"), job("switch", needs("migrate"))}}
		c.Environments = []*configv1.Destination{to("production", after("staging"))}
		says(r, valid(c), "m1")
		staging := r.built(mergedInto(4, "main", "m1"))
		r.pass(staging)
		production := newestTo(r, "production", "m1")
		if production.GetPullRequest() != 4 || production.GetJobCount() != 2 {
			t.Fatalf("%v", production)
		}
		r.pass(production.GetId() + "-1")
		r.pass(production.GetId() + "-2")
		r.becomes(production.GetId(), schedulerv1.Build_STATE_PASSED)
		merge := mergedInto(5, "production", "m1")
		merge.DeliveryId = "into production"
		if d := r.send(merge); d.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED {
			t.Errorf("a merge into production: %v", d)
		}
	})
}

func TestDeploysByHandAreHeldToTheFile(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, fileOf(to("canary", at("main")), to("live", after("canary")), to("tagged", at("v*"))), "mmm1")
		r.config.mu.Lock()
		r.config.branches = map[string][]string{"main": {"mmm1", "mmm0"}, "other": {"mmm1"}}
		r.config.mu.Unlock()
		create := func(req *schedulerv1.CreateBuildRequest) (*schedulerv1.Build, error) {
			req.Repository = "Acme/shop"
			answer, err := r.builds.CreateBuild(t.Context(), req)
			return answer.GetBuild(), err
		}
		for _, c := range []struct {
			what string
			req  *schedulerv1.CreateBuildRequest
			code codes.Code
			says string
		}{
			{"no such name", &schedulerv1.CreateBuildRequest{Environment: "Moon"}, codes.InvalidArgument, `environment "Moon"`},
			{"none", &schedulerv1.CreateBuildRequest{Action: schedulerv1.Build_ACTION_DEPLOY}, codes.InvalidArgument, "environment: say where to deploy"},
			{"a test", &schedulerv1.CreateBuildRequest{Action: schedulerv1.Build_ACTION_TEST, Environment: "canary"}, codes.InvalidArgument, "leave out the action"},
			{"not in the file", &schedulerv1.CreateBuildRequest{Environment: "moon"}, codes.FailedPrecondition, "nothing to run for deploy-moon in .forge.yml"},
			{"another branch", &schedulerv1.CreateBuildRequest{Environment: "canary", Branch: "other"}, codes.FailedPrecondition, "deploy.canary in .forge.yml of main does not name other"},
			{"staging elsewhere", &schedulerv1.CreateBuildRequest{Environment: "staging", Branch: "other"}, codes.FailedPrecondition, "staging is not deployed from branch other"},
			{"a branch for a tag", &schedulerv1.CreateBuildRequest{Environment: "tagged"}, codes.FailedPrecondition, "deploy.tagged in .forge.yml does not name main"},
			{"an older commit", &schedulerv1.CreateBuildRequest{Environment: "canary", Sha: strings.Repeat("0", 40)}, codes.NotFound, "the branch does not hold it"},
			{"what is before that", &schedulerv1.CreateBuildRequest{Environment: "live"}, codes.OK, ""},
			{"the branch", &schedulerv1.CreateBuildRequest{Environment: "canary"}, codes.OK, ""},
			{"staging", &schedulerv1.CreateBuildRequest{Environment: "staging"}, codes.OK, ""},
		} {
			b, err := create(c.req)
			if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.says) {
				t.Errorf("%s: %v, %v", c.what, b, err)
			}
			if c.req.GetEnvironment() == "live" && b.GetReason() != schedulerv1.Build_REASON_DEPLOYS_AFTER {
				t.Errorf("live by hand: %v", b)
			}
		}
		r.pass(newestTo(r, "canary", "mmm1").GetId())
		r.pass(newestTo(r, "live", "mmm1").GetId())
	})
}
