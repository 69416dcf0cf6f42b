package store

import (
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestSharedStatusShowsTheStrongestClaim(t *testing.T) {
	const (
		passed    = schedulerv1.Build_STATE_PASSED
		failed    = schedulerv1.Build_STATE_FAILED
		running   = schedulerv1.Build_STATE_RUNNING
		blocked   = schedulerv1.Build_STATE_BLOCKED
		cancelled = schedulerv1.Build_STATE_CANCELLED
	)
	of := func(id string, pull int32, state schedulerv1.Build_State) claim {
		return claim{Build: &schedulerv1.Build{Id: id, PullRequest: pull, State: state}, Open: true}
	}
	closed := func(c claim) claim { c.Open = false; return c }
	fork := func(c claim) claim { c.Build.Fork = true; return c }
	approved := func(c claim) claim { c.Build.Fork, c.Build.ApprovedBy = true, "ada"; return c }
	because := func(c claim, r schedulerv1.Build_Reason) claim { c.Build.Reason = r; return c }
	pushed := func(c claim, ref string) claim { c.Build.Ref = ref; return c }
	skip := schedulerv1.Build_REASON_SKIP_ASKED
	noPaths := schedulerv1.Build_REASON_NO_MATCHING_PATHS

	for name, c := range map[string]struct {
		newestFirst []claim
		want        string
	}{
		"none":                              {nil, ""},
		"an outsider's fork needs approval": {[]claim{fork(of("b", 2, blocked)), of("a", 1, passed)}, "a"},
		"the outsider closes it":            {[]claim{closed(fork(of("b", 2, cancelled))), of("a", 1, passed)}, "a"},
		"the outsider's fork, the green one is merged": {[]claim{fork(of("b", 2, blocked)), closed(of("a", 1, passed))}, "a"},
		"a fork that runs without approval fails":      {[]claim{fork(of("b", 2, failed)), of("a", 1, passed)}, "a"},
		"an approved fork fails":                       {[]claim{approved(of("b", 2, failed)), of("a", 1, passed)}, "b"},
		"the failed one is closed":                     {[]claim{closed(approved(of("b", 2, failed))), of("a", 1, passed)}, "a"},
		"the older failed":                             {[]claim{of("b", 2, passed), of("a", 1, failed)}, "a"},
		"the older that failed is closed":              {[]claim{of("b", 2, passed), closed(of("a", 1, failed))}, "b"},
		"the newer runs":                               {[]claim{of("b", 2, running), of("a", 1, passed)}, "b"},
		"the newer is cancelled":                       {[]claim{closed(of("b", 2, cancelled)), of("a", 1, passed)}, "a"},
		"the newest of equals":                         {[]claim{of("b", 2, passed), of("a", 1, passed)}, "b"},
		"a rebuild of the same pull request passes":    {[]claim{of("b", 1, passed), of("a", 1, failed)}, "b"},
		"no result, one is open":                       {[]claim{fork(of("b", 2, blocked)), closed(of("a", 1, cancelled))}, "b"},
		"no result, both are open":                     {[]claim{fork(of("b", 2, blocked)), of("a", 1, cancelled)}, "a"},
		"a skip is a result":                           {[]claim{of("b", 2, cancelled), because(of("a", 1, cancelled), skip)}, "a"},
		"no matching paths are a result":               {[]claim{of("b", 2, cancelled), because(of("a", 1, cancelled), noPaths)}, "a"},
		"an outsider asks for a skip":                  {[]claim{because(fork(of("b", 2, cancelled)), skip), of("a", 1, cancelled)}, "a"},
		"an outsider picks a base without paths":       {[]claim{because(fork(of("b", 2, cancelled)), noPaths), of("a", 1, cancelled)}, "a"},
		"two branches pushed, one failed":              {[]claim{pushed(of("b", 0, passed), "x"), pushed(of("a", 0, failed), "y")}, "a"},
		"one branch built again":                       {[]claim{pushed(of("b", 0, passed), "x"), pushed(of("a", 0, failed), "x")}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for id, standing := range standings(c.newestFirst) {
				if standing == shown {
					got = append(got, id)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("shown %q, want %q", got, c.want)
			}
		})
	}
}
