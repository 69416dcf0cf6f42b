package environment

import (
	"context"
	"slices"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// CancelPreview cancels the deploys to a preview that have not ended. They are cancelled
// from the newest on, so that none gets its turn by that.
func (s *Service) CancelPreview(ctx context.Context, t *store.Tx, repositoryID int64, name string, reason schedulerv1.Build_Reason, message, supersededBy string) ([]string, error) {
	unfinished, err := store.Previews{Tx: t}.Unfinished(ctx, repositoryID, name)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, b := range slices.Backward(unfinished) {
		if !b.Cancel.Time.IsZero() {
			continue
		}
		b.SupersededBy = supersededBy
		if err := s.Cancel(ctx, t, b, reason, message); err != nil {
			return nil, err
		}
		ids = append(ids, b.GetId())
	}
	return ids, nil
}

// ToStop is the deploy to a preview that is to be taken down by a build; nil where
// nothing is there, where nothing has to be run for it, or where that is to come.
func (s *Service) ToStop(ctx context.Context, t *store.Tx, repositoryID int64, name string) (*store.Build, error) {
	up, err := store.Previews{Tx: t}.Up(ctx, repositoryID, name)
	if up == nil || err != nil || !trigger.Runs(store.PipelineOf(schedulerv1.Build_ACTION_STOP, up.Config)) {
		return nil, err
	}
	return up, nil
}

// takenDown stores that nothing is in a preview any more.
func (s *Service) takenDown(ctx context.Context, t *store.Tx, e *store.Environment) error {
	deployed := e.Deployed
	e.Deployed, e.Newest = "", ""
	if err := t.SaveEnvironment(ctx, e); err != nil || deployed == "" {
		return err
	}
	return store.Previews{Tx: t}.TakenDown(ctx, deployed)
}

// retire takes a preview out of the lists that nobody wants and in which nothing is left.
// It is free, and nobody waits for it.
func (s *Service) retire(ctx context.Context, t *store.Tx, e *store.Environment) error {
	previews := store.Previews{Tx: t}
	wanted, err := previews.Wanted(ctx, e.RepositoryID, e.PullRequest)
	if err != nil || wanted.Wants(e.Name) {
		return err
	}
	if up, err := s.ToStop(ctx, t, e.RepositoryID, e.Name); up != nil || err != nil {
		return err
	}
	if err := s.takenDown(ctx, t, e); err != nil {
		return err
	}
	return previews.Remove(ctx, e)
}
