package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// manual builds what somebody asks for by hand, of a branch or a tag of the repository
// itself, by the file there.
type manual struct {
	schedulerv1.UnimplementedManualServiceServer
	service *Service
}

// create makes the build.
func (m manual) create(ctx context.Context, req *schedulerv1.CreateBuildRequest) (*schedulerv1.CreateBuildResponse, error) {
	if err := input.Bound(req.GetInputs()); err != nil {
		return nil, err
	}
	if req.GetEnvironment() != "" {
		return nil, fault.New(fault.Invalid, "environment: leave out the action, which is to deploy")
	}
	if req.GetSha() != "" && !wholeSha.MatchString(req.GetSha()) {
		return nil, fault.New(fault.Invalid, "sha: expected all 40 digits")
	}
	found, err := m.find(ctx, req.GetRepository(), req.GetBranch(), req.GetTag(), req.GetSha())
	if err != nil {
		return nil, err
	}
	ref := trigger.BranchRef + found.GetBranch()
	if req.GetTag() != "" {
		ref = trigger.TagRef + req.GetTag()
	}
	by, bound := askedBy(ctx), rpc.Caller(ctx).Bound
	if bound.Name != "" {
		by = "token " + bound.Name // no login has a blank
	}
	b, err := m.service.byHand(ctx, trigger.Intent{
		Event: &eventv1.Event{Repository: found.GetRepository(), Sender: &eventv1.Account{Login: by}},
		Kind:  trigger.ManualAsked, Action: schedulerv1.Build_ACTION_MANUAL, Sha: found.GetSha(), Ref: ref,
		Pull: &eventv1.PullRequest{Title: found.GetTitle()}, Inputs: req.GetInputs(),
	})
	return &schedulerv1.CreateBuildResponse{Build: b}, err
}

// createBound makes the build for who has a token that is bound to a repository.
func (m manual) createBound(ctx context.Context, req *schedulerv1.CreateBuildRequest) (*schedulerv1.CreateBuildResponse, error) {
	if action := req.GetAction(); req.GetEnvironment() != "" || action != schedulerv1.Build_ACTION_UNSPECIFIED && action != schedulerv1.Build_ACTION_MANUAL {
		return nil, fault.New(fault.Denied, "action: this token is bound to a repository, and runs what manual in .forge.yml has alone")
	}
	return m.create(ctx, req)
}

// boundList is a request for builds as a token that is bound to a repository may make it:
// those by hand, there.
func (s *Service) boundList(ctx context.Context, req *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsRequest, error) {
	bound := rpc.Caller(ctx).Bound
	if bound.Name == "" {
		return req, nil
	}
	req = proto.CloneOf(req)
	req.Repository, req.Actions = cmp.Or(req.GetRepository(), bound.Repository), []schedulerv1.Build_Action{schedulerv1.Build_ACTION_MANUAL}
	return req, s.tokens.Covers(ctx, bound, req.GetRepository())
}

// find looks up what is to be built. What lies in the merge queue, nobody has merged.
func (m manual) find(ctx context.Context, repository, branch, tag, sha string) (*configv1.FindCommitResponse, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return nil, err
	}
	bound := rpc.Caller(ctx).Bound
	if bound.Name != "" {
		if err := m.service.tokens.Covers(ctx, bound, repository); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(trigger.BranchRef+branch, trigger.QueueRef) {
		return nil, fault.New(fault.Invalid, "branch: the merge queue's own branches hold what nobody has merged, so nothing is run there by hand")
	}
	found, err := m.service.commits.FindCommit(ctx, &configv1.FindCommitRequest{
		Repository: &eventv1.Repository{Owner: owner, Name: name}, Branch: branch, Tag: tag, Sha: sha,
	})
	if err == nil && bound.Name != "" && found.GetRepository().GetId() != bound.RepositoryID { // renamed in between
		return nil, fault.New(fault.Denied, "this token is bound to another repository")
	}
	return found, err
}

// GetManual tells what can be asked for.
func (m manual) GetManual(ctx context.Context, req *schedulerv1.GetManualRequest) (*schedulerv1.GetManualResponse, error) {
	found, err := m.find(ctx, req.GetRepository(), req.GetBranch(), req.GetTag(), "")
	if err != nil {
		return nil, err
	}
	read, err := m.service.plan.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{Repository: found.GetRepository(), Sha: found.GetSha()})
	if err != nil {
		return nil, fmt.Errorf("read .forge.yml at %s: %w", found.GetSha(), err)
	}
	switch outcome := read.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Invalid:
		return nil, fault.New(fault.Conflict, plan.FirstProblem(outcome.Invalid))
	case *configv1.GetBuildConfigResponse_Forbidden:
		return nil, fault.New(fault.Conflict, outcome.Forbidden.GetMessage())
	}
	asked := read.GetConfig().GetManual()
	return &schedulerv1.GetManualResponse{Offered: asked != nil, Inputs: asked.GetInputs(), Sha: found.GetSha()}, nil
}
