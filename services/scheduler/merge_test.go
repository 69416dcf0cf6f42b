package scheduler

import (
	"fmt"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// merging is the usual file, whose pull requests are tested merged.
func merging(r *rig, sha string, answer *configv1.MergeResponse, err error) {
	config := usual()
	config.PullRequest = &configv1.BuildConfig_PullRequest{Test: configv1.BuildConfig_PullRequest_TEST_MERGE}
	config.Source = &configv1.Source{History: 5}
	r.config.set(sha, valid(config))
	r.config.mu.Lock()
	defer r.config.mu.Unlock()
	r.config.merge, r.config.mergeErr = answer, err
}

func TestPullRequestIsTestedMerged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		merging(r, "aaa", &configv1.MergeResponse{Sha: "merged"}, nil)
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		u := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", MasksSecrets: true, HeedsJobs: true, TakesCheckout: true})
		u.recv() // welcome
		if got := u.recv().GetPlan().GetEnvironment(); got["FORGE_MERGE_SHA"] != "merged" || got["FORGE_SHA"] != "aaa" {
			t.Errorf("FORGE_MERGE_SHA is %q", got["FORGE_MERGE_SHA"])
		}
		u.recv()
		r.config.mu.Lock()
		asked := r.config.sources[0]
		r.config.mu.Unlock()
		if asked.GetPacked() {
			t.Error("files come from the pack to a runner that does not take them from there")
		}
		if asked.GetSha() != "aaa" || asked.GetIntoSha() != "base" || asked.GetBase() != "main" || asked.GetPullRequest() != 1 || asked.GetCheckout().GetHistory() != 5 {
			t.Errorf("asked for %v", asked)
		}
	})
}

func TestConflictFailsThePullRequestWithoutAContainer(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		merging(r, "aaa", &configv1.MergeResponse{Conflicts: "conflicts in till.go"}, nil)
		id := r.built(opened(1, "aaa"))
		b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_MERGE_CONFLICT || b.GetMessage() != "merge of aaa into main at base: conflicts in till.go" {
			t.Errorf("%v", b)
		}
		if r.engine.running(id + "-1") {
			t.Error("a container runs")
		}
	})
}

func TestMergeThatNobodyKnowsYetIsAskedForAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		merging(r, "aaa", nil, fault.New(fault.Unavailable, "GitHub is away"))
		id := r.built(opened(1, "aaa"))
		kittest.Eventually(t, patience, func() error {
			if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_QUEUED || b.GetMessage() != "merge of aaa into main at base: GitHub is away" {
				return fmt.Errorf("%v", b)
			}
			return nil
		})
		merging(r, "aaa", &configv1.MergeResponse{Sha: "merged"}, nil)
		r.clock.Advance(time.Minute)
		r.wake()
		r.pass(id)
	})
}

func TestCommitThatIsGoneCannotBeMerged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		merging(r, "aaa", nil, fault.New(fault.NotFound, "GitHub has no such commit"))
		id := r.built(opened(1, "aaa"))
		b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		if b.GetReason() != schedulerv1.Build_REASON_START_FAILED || b.GetMessage() != "merge of aaa into main at base: GitHub has no such commit" {
			t.Errorf("%v", b)
		}
	})
}

// What was merged is deployed as it lies on its branch, and a tag has no base.
func TestOnlyPullRequestsAreTestedMerged(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		merging(r, "bbb", nil, fault.New(fault.Invalid, "nobody asks"))
		id := r.built(mergedInto(2, "main", "bbb"))
		if b := r.build(id); b.GetIntoSha() != "" {
			t.Errorf("a deploy is merged: %v", b)
		}
		r.pass(id)
	})
}
