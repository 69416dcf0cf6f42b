package plan

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// deploying finds what is deployed, and holds it to what the default branch's file asks
// of its environment.
type deploying struct{ *Service }

// besides are the deploys that a push brings, beside what else it builds.
func (s deploying) besides(ctx context.Context, p prepared) ([]prepared, error) {
	file, outOfReach, err := s.ruled(ctx, p.Intent, p.config.GetConfig())
	if err != nil {
		return nil, err
	}
	var all []prepared
	for _, e := range trigger.Environments(p.config.GetConfig()) {
		held := trigger.EnvironmentOf(file, e.GetName())
		if !trigger.ByPush(e, p.Ref) || outOfReach[e.GetName()] == nil && !trigger.ByPush(held, p.Ref) {
			continue
		}
		q := prepared{Intent: p.Intent, file: file, outOfReach: outOfReach[e.GetName()]}
		q.Action, q.Environment = trigger.DeployTo(e.GetName()), e.GetName()
		if q.outOfReach == nil {
			q.config = alone(file, e.GetName())
			q.containedIn = s.environments.ContainedIn(ctx, q.Intent)
		}
		if q.id, err = s.NewID(); err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

// alone is a file with one of its environments. What is built takes its jobs out of it.
func alone(file *configv1.BuildConfig, name string) *configv1.GetBuildConfigResponse {
	one := proto.CloneOf(file)
	trigger.Alone(one, name)
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: one}}
}

// ruled is a file that holds what the default branch's file asks, where what is
// deployed was pushed to another ref; and why environments are out of its reach.
func (s deploying) ruled(ctx context.Context, i trigger.Intent, file *configv1.BuildConfig) (*configv1.BuildConfig, map[string]*eventv1.Decision, error) {
	standard := i.Event.GetRepository().GetDefaultBranch()
	if len(file.GetEnvironments()) == 0 || i.Pull.GetNumber() != 0 || i.Ref == trigger.BranchRef+standard {
		return file, nil, nil
	}
	answer, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Branch: standard, EventTime: i.Event.GetReceiveTime(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, nil, fmt.Errorf("read .forge.yml of branch %s: %w", standard, err)
	}
	file = proto.CloneOf(file)
	out := trigger.Narrow(file, answer.GetConfig(), i.Ref, standard)
	return file, out, nil
}

// aimed is a deploy with what is asked of its environment.
func (s deploying) aimed(ctx context.Context, p prepared) (prepared, error) {
	if p.DeploysTo() == "" || p.config.GetConfig() == nil {
		return p, nil
	}
	file, outOfReach, err := s.ruled(ctx, p.Intent, p.config.GetConfig())
	if err != nil {
		return p, err
	}
	p.file, p.outOfReach = file, outOfReach[p.DeploysTo()]
	p.config = alone(file, p.DeploysTo())
	return p, nil
}

// unfit is a decision about what is not to be deployed to its environment.
func (s deploying) unfit(p prepared) *eventv1.Decision {
	name := p.DeploysTo()
	if name == "" || p.outOfReach != nil {
		return p.outOfReach
	}
	e := trigger.EnvironmentOf(p.file, name)
	byMerge, branch := trigger.ByMerge(e), p.Pull.GetBase().GetRef()
	switch {
	case p.Kind == trigger.PullRequestMerged && !byMerge:
		return wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "deploy.%s in .forge.yml names what deploys there, which merges do not", name)
	case p.Kind != trigger.RebuildAsked || p.Build != "":
		return nil
	case byMerge && !s.policy.Deploys(p.Event.GetRepository(), branch, p.Action):
		return wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "%s is not deployed from branch %s", name, branch)
	case !byMerge && !trigger.Takes(e, p.Ref):
		return wording.Ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "deploy.%s in .forge.yml does not name %s", name, branch)
	}
	return nil
}

// enter has a new deploy enter its environment. What was let go stays so where it is
// deployed once more.
func (s deploying) enter(ctx context.Context, t *store.Tx, p prepared, b *store.Build) error {
	if p.retryOf != "" && b.GetNeedsApproval() {
		old, err := store.ReadBuild(ctx, t, p.retryOf, "")
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil && old.GetSha() == b.GetSha() && old.GetEnvironment() == b.GetEnvironment() {
			b.ApprovedBy, b.ApproveTime = old.GetApprovedBy(), old.GetApproveTime()
		}
	}
	return s.environments.Enter(ctx, t, b)
}

// follow makes the deploys that come after one which has passed, of the same commit.
func (s deploying) follow(ctx context.Context, t *store.Tx, of *store.Build) error {
	file, err := store.Deploys{Tx: t}.File(ctx, of.GetId())
	if file == nil || err != nil {
		return err
	}
	for _, e := range trigger.Following(file, of.GetEnvironment()) {
		id, err := s.NewID()
		if err != nil {
			return err
		}
		i := Repeat(&eventv1.Event{
			Repository: of.GetRepository(), InstallationId: of.GetInstallationId(), Sender: &eventv1.Account{Login: of.GetActor()}, DeliveryId: of.GetDeliveryId(),
		}, of)
		i.Kind, i.Action, i.Environment = trigger.DeployCame, trigger.DeployTo(e.GetName()), e.GetName()
		prior, err := t.SameContent(ctx, i)
		if prior != nil || err != nil {
			continue
		}
		p := prepared{Intent: i, id: id, file: file, config: alone(file, e.GetName())}
		decided, err := s.addBuild(ctx, t, p)
		if err == nil {
			err = note(ctx, t, schedulerv1.AuditEntry_ORIGIN_DEPLOY, p, decided)
		}
		if err != nil {
			return fmt.Errorf("deploy %s to %s after %s: %w", wording.Short(of.GetSha()), e.GetName(), of.GetEnvironment(), err)
		}
	}
	return nil
}
