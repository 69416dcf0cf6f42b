package scheduler

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

var (
	tip, older, forks = strings.Repeat("a", 40), strings.Repeat("b", 40), strings.Repeat("f", 40)
	promoted          = strings.Repeat("c", 40)
)

func (r *rig) branches() {
	r.config.branches = map[string][]string{"main": {tip, older}, "production": {promoted}}
}

func TestBuildIsMadeByHandOfWhatABranchHolds(t *testing.T) {
	deploy, production := schedulerv1.Build_ACTION_DEPLOY_STAGING, schedulerv1.Build_ACTION_DEPLOY_PRODUCTION
	request := func(branch, sha string, action schedulerv1.Build_Action) *schedulerv1.CreateBuildRequest {
		return &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Branch: branch, Sha: sha, Action: action}
	}
	for name, c := range map[string]struct {
		req  *schedulerv1.CreateBuildRequest
		code codes.Code
		text string // of the error, or the build's context and sha
	}{
		"newest of the default branch": {request("", "", 0), codes.OK, "forge/test " + tip},
		"newest of a branch":           {request("production", "", schedulerv1.Build_ACTION_STAGING), codes.OK, "forge/staging " + promoted},
		"older commit":                 {request("main", older, 0), codes.OK, "forge/test " + older},
		"deploy":                       {request("main", "", deploy), codes.OK, "forge/deploy-staging " + tip},
		"deploy, newest by its sha":    {request("production", promoted, production), codes.OK, "forge/deploy-production " + promoted},

		"a fork's commit":         {request("main", forks, 0), codes.NotFound, "the branch does not hold it"},
		"another branch's commit": {request("production", older, 0), codes.NotFound, "the branch does not hold it"},
		"no such branch":          {request("feature", "", 0), codes.NotFound, ""},
		"a fork's branch":         {request("eve:main", "", 0), codes.NotFound, ""},
		"no such repository":      {&schedulerv1.CreateBuildRequest{Repository: "acme/other"}, codes.NotFound, ""},
		"no owner":                {&schedulerv1.CreateBuildRequest{Repository: "shop"}, codes.InvalidArgument, "repository: expected owner/name"},
		"short sha":               {request("main", tip[:7], 0), codes.InvalidArgument, "sha: expected all 40 digits"},
		"deploy of an older":      {request("main", older, deploy), codes.FailedPrecondition, "only the newest commit of main is deployed by hand: roll back to deploy an older one"},
		"staging from production": {request("production", "", deploy), codes.FailedPrecondition, "staging is not deployed from branch production"},
		"production from main":    {request("main", "", production), codes.FailedPrecondition, "production is not deployed from branch main"},
		"no such action":          {request("main", "", 99), codes.InvalidArgument, "action: there is no 99"},
		"nothing to run":          {request("main", "", schedulerv1.Build_ACTION_PUSH), codes.FailedPrecondition, "nothing to run for push in .forge.yml"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.branches()
			r.start()
			answer, err := r.builds.CreateBuild(t.Context(), c.req)
			if status.Code(err) != c.code {
				t.Fatalf("%v, want %v", err, c.code)
			}
			if err != nil {
				if c.text != "" && err.Error() != c.text {
					t.Errorf("%q, want %q", err, c.text)
				}
				if len(r.all()) != 0 {
					t.Errorf("built %v", r.all())
				}
				return
			}
			b := answer.GetBuild()
			if b.GetContext()+" "+b.GetSha() != c.text || b.GetFork() || b.GetTitle() != "Commit "+b.GetSha()[:3] || b.GetActor() != administrator || b.GetDeliveryId() != "" {
				t.Errorf("%v", b)
			}
			if _, err := r.builds.CreateBuild(t.Context(), c.req); status.Code(err) != codes.AlreadyExists {
				t.Errorf("while it is built: %v", err)
			}
		})
	}
}

func TestBrokenForgeYmlAnswersWithAnErroredBuild(t *testing.T) {
	r := sqliteRig(t)
	r.branches()
	r.config.set(tip, &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{
		Problems: []*configv1.ConfigInvalid_Problem{{Line: 1, Column: 2, Message: "not YAML"}, {Line: 3, Column: 4, Message: "nor JSON"}},
	}}})
	r.start()
	answer, err := r.builds.CreateBuild(t.Context(), &schedulerv1.CreateBuildRequest{Repository: "Acme/shop"})
	if b := answer.GetBuild(); err != nil || b.GetState() != schedulerv1.Build_STATE_ERRORED || b.GetMessage() != ".forge.yml:1:2: not YAML" ||
		len(b.GetConfigProblems()) != 2 || b.GetConfigProblems()[1].GetMessage() != "nor JSON" {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestRetryBuildsTheSameAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		retry := func(id string) (*schedulerv1.Build, error) {
			answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
			return answer.GetBuild(), err
		}
		test := r.built(opened(1, "aaa"))
		if _, err := retry(test); status.Code(err) != codes.AlreadyExists || err.Error() != "aaa is being built already, as "+test {
			t.Errorf("%v", err)
		}
		r.pass(test)
		again, err := retry(test)
		if err != nil || again.GetRetryOf() != test || again.GetPullRequest() != 1 || again.GetState() != schedulerv1.Build_STATE_QUEUED && again.GetState() != schedulerv1.Build_STATE_STARTING {
			t.Fatalf("%v, %v", again, err)
		}
		r.pass(again.GetId())
		if _, err := retry("nope"); status.Code(err) != codes.NotFound {
			t.Errorf("%v", err)
		}
	})
}

func TestOnlyTheNewestDeployIsRetried(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(mergedInto(1, "main", "m1"))
		r.pass(first)
		second := r.built(mergedInto(2, "main", "m2"))
		r.pass(second)
		third := r.built(mergedInto(3, "main", "m3"))
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: third}); err != nil {
			t.Fatal(err)
		}
		r.becomes(third, schedulerv1.Build_STATE_CANCELLED)
		if _, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: first}); status.Code(err) != codes.FailedPrecondition ||
			err.Error() != "build "+second+" is the newer deploy of the same environment: roll back instead" {
			t.Errorf("%v", err)
		}
		answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: second})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(answer.GetBuild().GetId())
	})
}
