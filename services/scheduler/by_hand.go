package scheduler

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// administrator is who calls, where GitHub's logins are shown. No login has a blank.
const administrator = "an administrator"

var wholeSha = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// CreateBuild builds a commit of a branch.
func (s *Service) CreateBuild(ctx context.Context, req *schedulerv1.CreateBuildRequest) (*schedulerv1.CreateBuildResponse, error) {
	owner, name, err := splitRepository(req.GetRepository())
	if err != nil {
		return nil, err
	}
	action := req.GetAction()
	if action == schedulerv1.Build_ACTION_UNSPECIFIED {
		action = schedulerv1.Build_ACTION_TEST
	}
	switch {
	case req.GetSha() != "" && !wholeSha.MatchString(req.GetSha()):
		return nil, fault.New(fault.Invalid, "sha: expected all 40 digits")
	case purposeOf(action).name == "":
		return nil, fault.Newf(fault.Invalid, "action: there is no %d", action)
	}
	found, err := s.commits.FindCommit(ctx, &configv1.FindCommitRequest{
		Repository: &eventv1.Repository{Owner: owner, Name: name}, Branch: req.GetBranch(), Sha: req.GetSha(),
	})
	if err != nil {
		return nil, err
	}
	if err := s.mayDeploy(action, found); err != nil {
		return nil, err
	}
	b, err := s.byHand(ctx, intent{
		event:  &eventv1.Event{Repository: found.GetRepository(), Sender: &eventv1.Account{Login: administrator}},
		moment: asked, action: action, sha: found.GetSha(), ref: branchRef + found.GetBranch(),
		pull: &eventv1.PullRequest{Title: found.GetTitle(), Base: &eventv1.PullRequestBranch{Ref: found.GetBranch()}},
	})
	return &schedulerv1.CreateBuildResponse{Build: b}, err
}

func splitRepository(repository string) (owner, name string, err error) {
	owner, name, ok := strings.Cut(repository, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fault.New(fault.Invalid, "repository: expected owner/name")
	}
	return owner, name, nil
}

// mayDeploy is an error for a deploy of what only a merge, or a roll back, may
// deploy.
func (s *Service) mayDeploy(action schedulerv1.Build_Action, of *configv1.FindCommitResponse) error {
	if purposeOf(action).environment == "" {
		return nil
	}
	fits := slices.ContainsFunc(triggers(), func(row trigger) bool {
		return row.moment == merged && row.action == action && row.into == s.branch(of.GetBranch())
	})
	switch {
	case !fits:
		return fault.Newf(fault.Conflict, "%s is not deployed from branch %s", purposeOf(action).environment, of.GetBranch())
	case !of.GetNewest():
		return fault.Newf(fault.Conflict, "only the newest commit of %s is deployed by hand: roll back to deploy an older one", of.GetBranch())
	}
	return nil
}

// RetryBuild builds the same again.
func (s *Service) RetryBuild(ctx context.Context, req *schedulerv1.RetryBuildRequest) (*schedulerv1.RetryBuildResponse, error) {
	old, err := readBuild(ctx, s.store.db.Read(), req.GetBuildId(), "")
	if err != nil {
		return nil, err
	}
	i := again(asAdmin(old), old)
	i.build = old.GetId()
	if decided := s.forkDecision(i.fork); decided != nil {
		return nil, undone(decided)
	}
	b, err := s.byHand(ctx, i)
	return &schedulerv1.RetryBuildResponse{Build: b}, err
}

// ApproveBuild lets a fork's commit run.
func (s *Service) ApproveBuild(ctx context.Context, req *schedulerv1.ApproveBuildRequest) (*schedulerv1.ApproveBuildResponse, error) {
	blocked, err := readBuild(ctx, s.store.db.Read(), req.GetBuildId(), "")
	if err != nil {
		return nil, err
	}
	if blocked.GetState() != schedulerv1.Build_STATE_BLOCKED {
		return nil, fault.Newf(fault.Conflict, "build %s does not wait for approval", req.GetBuildId())
	}
	i := again(asAdmin(blocked), blocked)
	i.moment, i.build = approved, blocked.GetId()
	decided, err := s.carryOut(ctx, i.event, []intent{i})
	switch {
	case err != nil:
		return nil, fmt.Errorf("approve build %s: %w", req.GetBuildId(), err)
	case decided.GetReason() != eventv1.Reason_REASON_APPROVED:
		return nil, undone(decided)
	}
	b, err := s.readWhole(ctx, req.GetBuildId())
	return &schedulerv1.ApproveBuildResponse{Build: b}, err
}

// asAdmin is an admin call about a build, in the place of an event.
func asAdmin(b *build) *eventv1.Event {
	return &eventv1.Event{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sender: &eventv1.Account{Login: administrator},
	}
}

// byHand carries out the wish for a build and returns it.
func (s *Service) byHand(ctx context.Context, i intent) (*schedulerv1.Build, error) {
	decided, err := s.carryOut(ctx, i.event, []intent{i})
	switch {
	case err != nil:
		return nil, fmt.Errorf("build %s of %s/%s: %w", short(i.sha), i.event.GetRepository().GetOwner(), i.event.GetRepository().GetName(), err)
	case decided.GetReason() == eventv1.Reason_REASON_DUPLICATE, decided.GetReason() == eventv1.Reason_REASON_ALREADY_CONTAINED,
		len(decided.GetBuildIds()) == 0:
		return nil, undone(decided)
	}
	return s.readWhole(ctx, decided.GetBuildIds()[0])
}

// undone is the error of a call that was decided against.
func undone(decided *eventv1.Decision) error {
	kind := fault.Conflict
	if decided.GetReason() == eventv1.Reason_REASON_DUPLICATE {
		kind = fault.Exists
	}
	return fault.New(kind, strings.TrimPrefix(decided.GetText(), "ignored: "))
}
