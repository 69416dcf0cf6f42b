package scheduler

import (
	"strings"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestBaseBranchIsMeantByPatternOrAsTheDefault(t *testing.T) {
	for name, c := range map[string]struct {
		integration, production string
		base, defaultBranch     string
		action                  schedulerv1.Build_Action // unspecified: nothing is built
	}{
		"the default branch":       {"default", "production", "develop", "develop", schedulerv1.Build_ACTION_TEST},
		"another repository's":     {"default", "production", "develop", "main", 0},
		"beside the default":       {"default master main", "production", "master", "trunk", schedulerv1.Build_ACTION_TEST},
		"a branch called default":  {"default", "production", "default", "main", 0},
		"a pattern":                {"main release/*", "production", "release/1.2", "main", schedulerv1.Build_ACTION_TEST},
		"a pattern, deeper":        {"main release/*", "production", "release/1.2/fix", "main", 0},
		"production by a pattern":  {"main", "live/*", "live/eu", "main", schedulerv1.Build_ACTION_STAGING},
		"production first of both": {"**", "live/*", "live/eu", "main", schedulerv1.Build_ACTION_STAGING},
		"no default branch known":  {"default", "production", "develop", "", 0},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Policy.IntegrationBranches, r.deps.Policy.ProductionBranches = strings.Fields(c.integration), strings.Fields(c.production)
			r.start()
			e := opened(1, "aaa")
			e.Repository.DefaultBranch, pull(e).Base.Ref = c.defaultBranch, c.base
			d := r.send(e)
			if c.action == 0 {
				if d.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED || len(d.GetBuildIds()) != 0 {
					t.Errorf("decided %v, want that the branch is ignored", d)
				}
				return
			}
			if len(d.GetBuildIds()) != 1 || r.build(d.GetBuildIds()[0]).GetAction() != c.action {
				t.Errorf("decided %v, want a build for %v", d, c.action)
			}
		})
	}
}

func TestPromotionGoesToTheFirstBranchThatIsNoPattern(t *testing.T) {
	for _, c := range []struct{ production, into string }{
		{"live/* production", "production"},
		{"default", "trunk"},
		{"live/*", ""},
	} {
		policy := trigger.Policy{ProductionBranches: strings.Fields(c.production)}
		if into := policy.PromotesTo(&eventv1.Repository{DefaultBranch: "trunk"}); into != c.into {
			t.Errorf("%s: promoted to %q, want %q", c.production, into, c.into)
		}
	}
}

// The default branch of the repository counts, not the server's list alone.
func TestDeployByHandKnowsTheDefaultBranch(t *testing.T) {
	r := sqliteRig(t)
	r.deps.Policy.IntegrationBranches = trigger.Branches{"default"}
	r.branches()
	r.start()
	answer, err := r.builds.CreateBuild(t.Context(), &schedulerv1.CreateBuildRequest{
		Repository: "Acme/shop", Action: schedulerv1.Build_ACTION_DEPLOY_STAGING,
	})
	if err != nil || answer.GetBuild().GetAction() != schedulerv1.Build_ACTION_DEPLOY_STAGING {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestBrokenPatternOfBranchesStopsTheStart(t *testing.T) {
	for _, p := range []trigger.Policy{
		{IntegrationBranches: trigger.Branches{"release/[1"}, Forks: trigger.ForkRun},
		{ProductionBranches: trigger.Branches{"release/[1"}, Forks: trigger.ForkRun},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), `"release/[1"`) {
			t.Errorf("error %v, want one that names the pattern", err)
		}
	}
}
