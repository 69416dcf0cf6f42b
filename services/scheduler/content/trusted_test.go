package content

import (
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Anybody with write access can push a branch of a new name: none is trusted by being
// called as the setting is written.
func TestBranchIsTrustedAsTheSettingMeansIt(t *testing.T) {
	s := &Service{trusted: Trusted{Branches: []string{"default", "master", "release/*"}}}
	for branch, trusted := range map[string]bool{
		"trunk": true, "master": true, "release/1": true,
		"default": false, "release/1/fix": false, "Trunk": false, "masters": false, "refs/heads/trunk": false, "trunk/": false, "": false,
	} {
		got := s.scopeOf(&store.Build{Build: &schedulerv1.Build{
			Action: schedulerv1.Build_ACTION_PUSH, DeliveryId: "delivery", Ref: "refs/heads/" + branch, Repository: &eventv1.Repository{Id: 1, DefaultBranch: "trunk"},
		}})
		if (got.name == merged) != trusted || (got.tier == tierMerged) != trusted {
			t.Errorf("branch %q writes to %v", branch, got)
		}
	}
	unknown := s.scopeOf(&store.Build{Build: &schedulerv1.Build{Action: schedulerv1.Build_ACTION_PUSH, DeliveryId: "delivery", Ref: "refs/heads/", Repository: &eventv1.Repository{Id: 1}}})
	if unknown.tier >= tierMerged {
		t.Errorf("a branch without a name, where no default branch is known, writes to %v", unknown)
	}
}
