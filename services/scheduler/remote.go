package scheduler

import (
	"cmp"
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// remotePrefix begins the ref of a remote run, which is none that git has.
const remotePrefix = "remote/"

// CreateRemoteBuild builds what somebody's working tree has other than a commit that a
// branch of the repository holds: so a fork's commit is none.
func (s *Service) CreateRemoteBuild(ctx context.Context, req *schedulerv1.CreateRemoteBuildRequest) (*schedulerv1.CreateRemoteBuildResponse, error) {
	owner, name, err := store.SplitRepository(req.GetRepository())
	if err != nil {
		return nil, err
	}
	switch {
	case !wholeSha.MatchString(req.GetBaseSha()):
		return nil, fault.New(fault.Invalid, "base_sha: expected all 40 digits")
	case strings.HasPrefix(trigger.BranchRef+req.GetBranch(), trigger.QueueRef):
		return nil, fault.New(fault.Invalid, "branch: the merge queue's own branches hold what nobody has merged")
	}
	found, err := s.commits.FindCommit(ctx, &configv1.FindCommitRequest{
		Repository: &eventv1.Repository{Owner: owner, Name: name}, Branch: req.GetBranch(), Sha: req.GetBaseSha(),
	})
	if err != nil {
		return nil, err
	}
	by := cmp.Or(rpc.Caller(ctx).Person, "administrator") // git takes names without blanks
	asked := proto.CloneOf(req)
	asked.Branch = found.GetBranch()
	asked.Difference = &configv1.Difference{Changes: req.GetDifference().GetChanges(), Author: by, Time: timestamppb.New(s.deps.Now())}
	b, err := s.byHand(ctx, trigger.Intent{
		Event: &eventv1.Event{Repository: found.GetRepository(), Sender: &eventv1.Account{Login: askedBy(ctx)}},
		Kind:  trigger.RemoteAsked, Action: schedulerv1.Build_ACTION_TEST, Sha: found.GetSha(), Ref: remotePrefix + strings.ToLower(by), Remote: asked,
		Pull: &eventv1.PullRequest{Title: "Working tree of " + by, Base: &eventv1.PullRequestBranch{Ref: found.GetBranch(), Sha: found.GetSha()}},
	})
	return &schedulerv1.CreateRemoteBuildResponse{Build: b}, err
}
