package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// administrator is who calls, where GitHub's logins are shown.
const administrator = audit.Administrator

// askedBy is for whom a call is made: a person who has signed in, by their login, or who
// has the admin token.
func askedBy(ctx context.Context) string { return cmp.Or(rpc.Caller(ctx).Person, administrator) }

var (
	login    = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?$`)
	wholeSha = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// CreateBuild builds a commit of a branch.
func (s *Service) CreateBuild(ctx context.Context, req *schedulerv1.CreateBuildRequest) (*schedulerv1.CreateBuildResponse, error) {
	owner, name, err := store.SplitRepository(req.GetRepository())
	if err != nil {
		return nil, err
	}
	switch action := req.GetAction(); {
	case rpc.Caller(ctx).Bound.Name != "":
		return manual{service: s}.createBound(ctx, req)
	case action == schedulerv1.Build_ACTION_MANUAL,
		action == schedulerv1.Build_ACTION_UNSPECIFIED && len(req.GetInputs()) > 0 && req.GetEnvironment() == "":
		return manual{service: s}.create(ctx, req)
	}
	action, err := actionByHand(req)
	if err != nil {
		return nil, err
	}
	switch {
	case len(req.GetInputs()) > 0 || req.GetTag() != "":
		return nil, fault.New(fault.Invalid, "inputs and tag: only what manual in .forge.yml runs takes them, which is the action manual")
	case req.GetSha() != "" && !wholeSha.MatchString(req.GetSha()):
		return nil, fault.New(fault.Invalid, "sha: expected all 40 digits")
	case trigger.IsPreview(action):
		return nil, fault.New(fault.Invalid, "action: pull requests alone deploy to previews")
	case trigger.ActionOf(action).Name == "":
		return nil, fault.Newf(fault.Invalid, "action: there is no %d", action)
	}
	found, err := s.commits.FindCommit(ctx, &configv1.FindCommitRequest{
		Repository: &eventv1.Repository{Owner: owner, Name: name}, Branch: req.GetBranch(), Sha: req.GetSha(),
	})
	if err != nil {
		return nil, err
	}
	if trigger.ActionOf(action).Deploys && !found.GetNewest() {
		return nil, fault.Newf(fault.Conflict, "only the newest commit of %s is deployed by hand: roll back to deploy an older one", found.GetBranch())
	}
	b, err := s.byHand(ctx, trigger.Intent{
		Event: &eventv1.Event{Repository: found.GetRepository(), Sender: &eventv1.Account{Login: askedBy(ctx)}},
		Kind:  trigger.RebuildAsked, Action: action, Environment: req.GetEnvironment(), Sha: found.GetSha(), Ref: trigger.BranchRef + found.GetBranch(),
		Pull: &eventv1.PullRequest{Title: found.GetTitle(), Base: &eventv1.PullRequestBranch{Ref: found.GetBranch()}},
	})
	return &schedulerv1.CreateBuildResponse{Build: b}, err
}

// actionByHand is what a call asks to be run.
func actionByHand(req *schedulerv1.CreateBuildRequest) (schedulerv1.Build_Action, error) {
	action, to := req.GetAction(), req.GetEnvironment()
	if to == "" {
		if action == schedulerv1.Build_ACTION_DEPLOY {
			return 0, fault.New(fault.Invalid, "environment: say where to deploy")
		}
		return cmp.Or(action, schedulerv1.Build_ACTION_TEST), nil
	}
	if err := trigger.CheckEnvironment(to); err != nil {
		return 0, err
	}
	if action != schedulerv1.Build_ACTION_UNSPECIFIED && action != trigger.DeployTo(to) {
		return 0, fault.New(fault.Invalid, "environment: leave out the action, which is to deploy")
	}
	return trigger.DeployTo(to), nil
}

// RetryBuild builds the same again.
func (s *Service) RetryBuild(ctx context.Context, req *schedulerv1.RetryBuildRequest) (*schedulerv1.RetryBuildResponse, error) {
	old, err := store.ReadBuild(ctx, s.store.DB.Read(), req.GetBuildId(), "")
	if err != nil {
		return nil, err
	}
	if req.GetFailedOnly() && !old.HasJobs() {
		return nil, fault.Newf(fault.Conflict, "build %s has no jobs: retry it as a whole", old.GetId())
	}
	i := plan.Repeat(asked(ctx, old), old)
	i.Build, i.Again.Failed = store.WholeID(old.GetId()), req.GetFailedOnly()
	if old.IsJob() {
		i.Again.Job = old.ConfigJob().GetName()
	}
	if decided := s.deps.Policy.ForkDecision(i.Fork); decided != nil {
		return nil, undone(decided)
	}
	if old.IsRemote() {
		i.Kind = trigger.RemoteAsked
		if i.Remote, err = store.ReadDifference(ctx, s.store.DB.Read(), old.GetId()); err != nil {
			return nil, err
		}
	}
	b, err := s.byHand(ctx, i)
	return &schedulerv1.RetryBuildResponse{Build: b}, err
}

// ApproveBuild lets a fork's commit run.
func (s *Service) ApproveBuild(ctx context.Context, req *schedulerv1.ApproveBuildRequest) (*schedulerv1.ApproveBuildResponse, error) {
	blocked, err := store.ReadBuild(ctx, s.store.DB.Read(), store.WholeID(req.GetBuildId()), "")
	if err != nil {
		return nil, err
	}
	if blocked.GetEnvironment() != "" && !trigger.IsPreview(blocked.GetAction()) {
		return s.letGo(ctx, req, blocked)
	}
	if req.GetBy() != "" {
		return nil, fault.New(fault.Invalid, "by: only deploys are approved in somebody's name")
	}
	if blocked.GetState() != schedulerv1.Build_STATE_BLOCKED {
		return nil, fault.Newf(fault.Conflict, "build %s does not wait for approval", req.GetBuildId())
	}
	i := plan.Repeat(asked(ctx, blocked), blocked)
	i.Kind, i.Build = trigger.ApprovalGiven, blocked.GetId()
	decided, err := s.plan.Apply(ctx, i.Event, []trigger.Intent{i})
	switch {
	case err != nil:
		return nil, fmt.Errorf("approve build %s: %w", req.GetBuildId(), err)
	case decided.GetReason() != eventv1.Reason_REASON_APPROVED:
		return nil, undone(decided)
	}
	b, err := s.readWhole(ctx, req.GetBuildId())
	return &schedulerv1.ApproveBuildResponse{Build: b}, err
}

// letGo lets a deploy go.
func (s *Service) letGo(ctx context.Context, req *schedulerv1.ApproveBuildRequest, b *store.Build) (*schedulerv1.ApproveBuildResponse, error) {
	event, person := asked(ctx, b), rpc.Caller(ctx).Person
	switch {
	case person != "" && req.GetBy() != "" && !strings.EqualFold(req.GetBy(), person):
		return nil, fault.New(fault.Denied, "by: who has signed in lets a deploy go in no other name")
	case person == "" && req.GetBy() != "":
		if !login.MatchString(req.GetBy()) {
			return nil, fault.New(fault.Invalid, "by: expected a login of GitHub")
		}
		event.Sender = &eventv1.Account{Login: req.GetBy()}
	}
	i, decided, err := plan.LetGo(ctx, s.plan, event, b, req.GetBy() == "" && person == "")
	if err == nil && decided == nil {
		decided, err = s.plan.Apply(ctx, event, []trigger.Intent{i})
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("approve build %s: %w", b.GetId(), err)
	case decided.GetReason() != eventv1.Reason_REASON_APPROVED:
		return nil, undone(decided)
	}
	shown, err := s.readWhole(ctx, b.GetId())
	return &schedulerv1.ApproveBuildResponse{Build: shown}, err
}

// asked is a call about a build, in the place of an event.
func asked(ctx context.Context, b *store.Build) *eventv1.Event {
	return &eventv1.Event{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sender: &eventv1.Account{Login: askedBy(ctx)},
	}
}

// byHand carries out the wish for a build and returns it.
func (s *Service) byHand(ctx context.Context, i trigger.Intent) (*schedulerv1.Build, error) {
	decided, err := s.plan.Apply(ctx, i.Event, []trigger.Intent{i})
	switch {
	case err != nil:
		return nil, fmt.Errorf("build %s of %s/%s: %w", wording.Short(i.Sha), i.Event.GetRepository().GetOwner(), i.Event.GetRepository().GetName(), err)
	case decided.GetReason() == eventv1.Reason_REASON_DUPLICATE, decided.GetReason() == eventv1.Reason_REASON_ALREADY_CONTAINED,
		len(decided.GetBuildIds()) == 0:
		return nil, undone(decided)
	}
	return s.readWhole(ctx, decided.GetBuildIds()[0])
}

// undone is the error of a call that was decided against.
func undone(decided *eventv1.Decision) error {
	kind := fault.Conflict
	switch decided.GetReason() {
	case eventv1.Reason_REASON_DUPLICATE:
		kind = fault.Exists
	case eventv1.Reason_REASON_NOT_ALLOWED:
		kind = fault.Denied
	default:
	}
	return fault.New(kind, strings.TrimPrefix(decided.GetText(), "ignored: "))
}
