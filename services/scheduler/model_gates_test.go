package scheduler

import (
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// modelEnvironments are what comes after staging in each file of a story that has such:
// the first is let go by somebody, the second follows it.
func (m modelSiblings) modelEnvironments(job *configv1.Pipeline) []*configv1.Destination {
	if !m.gated {
		return nil
	}
	return []*configv1.Destination{
		{Name: "canary", After: "staging", Approval: true, Execute: proto.CloneOf(job)},
		{Name: "edge", After: "canary", Execute: proto.CloneOf(job)},
	}
}

// checkGates: a deploy that begins was let go, and its commit is where it has to be
// before; what was deployed is followed; what waits to be let go is newer than all that
// were.
func (m modelChecker) checkGates(builds []*store.Build) {
	type place struct {
		repository       int64
		environment, sha string
	}
	passed, made := map[place]bool{}, map[place]bool{}
	letGo := map[place]int64{} // the newest, without a commit
	for _, b := range builds {
		if b.IsJob() || b.GetEnvironment() == "" {
			continue
		}
		at := place{b.GetRepository().GetId(), b.GetEnvironment(), b.GetSha()}
		made[at] = true
		passed[at] = passed[at] || b.GetState() == schedulerv1.Build_STATE_PASSED
		if b.GetApproveTime() != nil && b.GetRetryOf() == "" && b.GetRollBackOf() == "" {
			at.sha = ""
			letGo[at] = max(letGo[at], b.Number)
		}
	}
	after := map[string]string{"staging": "canary", "canary": "edge"}
	for _, b := range builds {
		if b.IsJob() || b.GetEnvironment() == "" || b.GetRollBackOf() != "" {
			continue
		}
		at := place{b.GetRepository().GetId(), b.GetEnvironment(), b.GetSha()}
		begun := b.GetState() == schedulerv1.Build_STATE_QUEUED || b.GetState() == schedulerv1.Build_STATE_PASSED || b.GetAttempt() > 0
		if before := (place{at.repository, b.GetAfter(), at.sha}); begun && b.GetAfter() != "" && !passed[before] {
			m.t.Errorf("build %s has begun, and its commit is not deployed to %s", b.GetId(), b.GetAfter())
		}
		if begun && b.GetNeedsApproval() && (b.GetApprovedBy() == "" || b.GetApproveTime() == nil) {
			m.t.Errorf("build %s has begun, and nobody has let it go", b.GetId())
		}
		if next := (place{at.repository, after[at.environment], at.sha}); m.gated && b.GetState() == schedulerv1.Build_STATE_PASSED && next.environment != "" && !made[next] {
			m.t.Errorf("build %s has passed, and nothing follows to %s", b.GetId(), next.environment)
		}
		at.sha = ""
		if b.GetState() == schedulerv1.Build_STATE_BLOCKED && b.Number < letGo[at] {
			m.t.Errorf("build %s waits to be let go, and a newer one was", b.GetId())
		}
	}
}
