package scheduler

import (
	"context"
	"fmt"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// freezeMessage is, in characters, what fits a commit status with the words around it.
const freezeMessage = 100

// ListEnvironments lists environments.
func (s *Service) ListEnvironments(ctx context.Context, req *schedulerv1.ListEnvironmentsRequest) (*schedulerv1.ListEnvironmentsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after store.EnvironmentKey
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.RepositoryID, &after.Name); err != nil {
		return nil, err
	}
	found, err := s.store.ReadEnvironments(ctx, req.GetRepository(), after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list environments: %w", err)
	}
	answer := &schedulerv1.ListEnvironmentsResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last *store.Environment) []any { return []any{last.RepositoryID, last.Name} })
	for _, e := range found {
		shown, err := environment.ShowEnvironment(ctx, s.store.DB.Read(), e)
		if err != nil {
			return nil, err
		}
		answer.Environments = append(answer.Environments, shown)
	}
	return answer, nil
}

// GetEnvironment shows one environment.
func (s *Service) GetEnvironment(ctx context.Context, req *schedulerv1.GetEnvironmentRequest) (*schedulerv1.GetEnvironmentResponse, error) {
	if err := trigger.CheckEnvironment(req.GetEnvironment()); err != nil {
		return nil, err
	}
	found, err := s.store.ReadEnvironments(ctx, req.GetRepository(), store.EnvironmentKey{}, rpc.LargestPage)
	if err != nil {
		return nil, fmt.Errorf("environment %s of %s: %w", req.GetEnvironment(), req.GetRepository(), err)
	}
	for _, e := range found {
		if e.Name == req.GetEnvironment() && strings.EqualFold(e.Repository, req.GetRepository()) {
			shown, err := environment.ShowWhole(ctx, s.store.DB.Read(), e)
			return &schedulerv1.GetEnvironmentResponse{Environment: shown}, err
		}
	}
	return nil, fault.Newf(fault.NotFound, "nothing was ever to be deployed to %s of %s", req.GetEnvironment(), req.GetRepository())
}

// FreezeEnvironment lets no further deploy begin.
func (s *Service) FreezeEnvironment(ctx context.Context, req *schedulerv1.FreezeEnvironmentRequest) (*schedulerv1.FreezeEnvironmentResponse, error) {
	if req.GetMessage() == "" {
		return nil, fault.New(fault.Invalid, "message: say why, for those who wait")
	}
	if err := checkMessage(req.GetMessage(), freezeMessage); err != nil {
		return nil, err
	}
	entry := &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_FREEZE, Detail: req.GetMessage()}
	answer := &schedulerv1.FreezeEnvironmentResponse{}
	shown, err := s.changeEnvironment(ctx, req.GetRepository(), req.GetEnvironment(), entry, func(ctx context.Context, t *store.Tx, e *store.Environment) error {
		answer.Warning = ""
		if known, err := store.IsDeployedTo(ctx, t, e); err != nil {
			return err
		} else if !known {
			answer.Warning = fmt.Sprintf("nothing was ever to be deployed to %s of %s: it is frozen for when something is", e.Name, e.Repository)
		}
		if e.FrozenSince.IsZero() {
			e.FrozenSince = t.Now
		}
		e.FreezeMessage = req.GetMessage()
		if err := s.environments.ReleaseUnstarted(ctx, t, e); err != nil {
			return err
		}
		return s.environments.Advance(ctx, t, e)
	})
	answer.Environment = shown
	return answer, err
}

// UnfreezeEnvironment lets deploys go on.
func (s *Service) UnfreezeEnvironment(ctx context.Context, req *schedulerv1.UnfreezeEnvironmentRequest) (*schedulerv1.UnfreezeEnvironmentResponse, error) {
	entry := &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_UNFREEZE}
	shown, err := s.changeEnvironment(ctx, req.GetRepository(), req.GetEnvironment(), entry, func(ctx context.Context, t *store.Tx, e *store.Environment) error {
		known, err := store.IsDeployedTo(ctx, t, e)
		switch {
		case err != nil:
			return err
		case !known && e.FrozenSince.IsZero():
			return fault.Newf(fault.NotFound, "nothing was ever to be deployed to %s of %s, and it is not frozen", e.Name, e.Repository)
		}
		e.FrozenSince, e.FreezeMessage = time.Time{}, ""
		if !known {
			return store.ForgetEnvironment(ctx, t, e)
		}
		return s.environments.Advance(ctx, t, e)
	})
	return &schedulerv1.UnfreezeEnvironmentResponse{Environment: shown}, err
}

// RollBackEnvironment deploys once more what an earlier deploy put there.
func (s *Service) RollBackEnvironment(ctx context.Context, req *schedulerv1.RollBackEnvironmentRequest) (*schedulerv1.RollBackEnvironmentResponse, error) {
	id, err := s.plan.NewID()
	if err != nil {
		return nil, err
	}
	entry := &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_ROLL_BACK, Detail: "to what build " + store.WholeID(req.GetBuildId()) + " deployed"}
	_, err = s.changeEnvironment(ctx, req.GetRepository(), req.GetEnvironment(), entry, func(ctx context.Context, t *store.Tx, e *store.Environment) error {
		of, err := t.Build(ctx, store.WholeID(req.GetBuildId()))
		if err != nil {
			return err
		}
		id, err = s.environments.RollBack(ctx, t, e, of, id, s.plan.BuildURL(id))
		entry.BuildId = id
		return err
	})
	if err != nil {
		return nil, err
	}
	b, err := s.readWhole(ctx, id)
	return &schedulerv1.RollBackEnvironmentResponse{Build: b}, err
}

// changeEnvironment changes an environment, writes that into the audit log, and shows the
// environment as it is then.
func (s *Service) changeEnvironment(ctx context.Context, repository, name string, entry *schedulerv1.AuditEntry, do func(ctx context.Context, t *store.Tx, e *store.Environment) error) (*schedulerv1.Environment, error) {
	if err := trigger.CheckEnvironment(name); err != nil {
		return nil, err
	}
	var shown *schedulerv1.Environment
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		e, err := t.FindEnvironment(ctx, repository, name)
		if err != nil {
			return err
		}
		if err := do(ctx, t, e); err != nil {
			return err
		}
		entry.Repository, entry.Environment = e.Repository, e.Name
		if err := audit.Add(ctx, t, e.RepositoryID, entry); err != nil {
			return err
		}
		shown, err = environment.ShowWhole(ctx, t, e)
		return err
	})
	return shown, err
}
